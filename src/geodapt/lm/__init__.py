"""Language models of any kind: what a user chooses about training and measuring them."""
