"""Declarative pipelines: the Pipelines API, and a runtime for their source files."""
