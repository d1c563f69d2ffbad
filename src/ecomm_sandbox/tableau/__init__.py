"""A Tableau site on one machine: the REST endpoints that tableauserverclient uses, before extracts that are really read."""
