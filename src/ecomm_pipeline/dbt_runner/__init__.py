"""The stage dbt-runner: builds and tests the KPI tables."""
