"""Where in a base model an adapter acts, and whether it belongs there."""
