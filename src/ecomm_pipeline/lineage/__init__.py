"""OpenLineage events of stages: what each read and wrote, told to whatever backend the client is configured for."""
