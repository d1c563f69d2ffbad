"""`ecomm exporter`: the ledger as metrics for Prometheus."""
