"""The pipeline's workflows for Argo Workflows 4, drawn in Hera 7; `python -m workflows.render` writes their YAML."""
