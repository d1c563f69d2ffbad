"""`ecomm run`: the workflows that Argo runs, with processes of this machine."""
