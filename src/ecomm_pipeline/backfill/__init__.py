"""`ecomm backfill`: do the dates of a range that need it, here or on the cluster; the plan comes before the act."""
