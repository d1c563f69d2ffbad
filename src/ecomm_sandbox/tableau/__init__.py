"""A Tableau site on one machine: the endpoints that tableauserverclient uses, and extracts that are really read."""
