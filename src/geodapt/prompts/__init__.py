"""Prompt learners on a frozen CLIP or SigLIP, each with or without an adapter of its features."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
