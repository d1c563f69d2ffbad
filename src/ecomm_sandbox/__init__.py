"""A local Postgres, S3, Databricks and Tableau that speak the real protocols, to run the pipeline on one machine."""
