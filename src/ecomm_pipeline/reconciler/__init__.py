"""The reconciler: rows and money add up from Postgres to the KPI tables, or it is said where they do not."""
