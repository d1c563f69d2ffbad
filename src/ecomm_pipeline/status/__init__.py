"""`ecomm status`: dates and stages, from the ledger."""
