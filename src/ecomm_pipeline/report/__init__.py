"""`ecomm report`: one self-contained page of what ran, what it moved and what it means."""
