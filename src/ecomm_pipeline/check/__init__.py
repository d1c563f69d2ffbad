"""`ecomm check`: whether each service that the stages depend on answers us, lets us in and has what we need."""
