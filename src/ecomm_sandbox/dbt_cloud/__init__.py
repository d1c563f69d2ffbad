"""An account of dbt Cloud on one machine: the endpoints that a job's runs need, and runs that really build."""
