"""Serving: one engine owns a model; every request brings its own gate, and all share a batch."""
