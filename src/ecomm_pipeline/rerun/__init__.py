"""`ecomm rerun`: do a part of a date again, and what is behind it, here or on the cluster."""
