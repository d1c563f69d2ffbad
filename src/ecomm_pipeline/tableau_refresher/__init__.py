"""tableau-refresher: refresh the Tableau extracts that read the KPI tables, and prove that they are fresh."""
