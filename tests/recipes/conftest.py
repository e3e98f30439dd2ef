"""The tiny recipe for these tests."""

from tiny import tiny

__all__ = ["tiny"]
