"""`ecomm finish`: the exit handler of every workflow, which closes the ledger."""
