"""A system from outside of the package: its settings, and what it adds to a page."""
