"""The lakehouse's rules, as functions from DataFrame to DataFrame; `transformations/` wires them into the pipeline."""
