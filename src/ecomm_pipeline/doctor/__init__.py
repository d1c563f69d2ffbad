"""`ecomm doctor`: what is wrong with a date first, what follows from it, and the command that repairs it."""
