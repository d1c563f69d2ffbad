"""Game day: switch faults on, and prove that each is noticed, told to the right people, and repaired with a command."""
