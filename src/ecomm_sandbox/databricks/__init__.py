"""Databricks on one machine: a SQL warehouse and the Pipelines API over Spark and Delta, for the official clients."""
