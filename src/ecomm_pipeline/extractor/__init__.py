"""extractor: one table and date, Postgres → CSV on S3."""
