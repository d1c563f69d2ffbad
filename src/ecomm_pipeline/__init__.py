"""A daily e-commerce batch: Postgres to S3 to Databricks to dbt to Tableau, proven at each hop."""

__all__ = ["__version__"]

__version__ = "0.1.0"
