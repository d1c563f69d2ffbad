"""dlt-trigger: start or adopt an update of the Databricks pipeline and wait for that update."""
