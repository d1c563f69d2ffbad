"""`ecomm diff`: what differs between two dates, or between two runs of a date."""
