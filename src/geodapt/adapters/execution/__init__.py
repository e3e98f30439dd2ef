"""What the layers of a model do under a gate."""
