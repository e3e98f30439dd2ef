from geodapt.cli.app import main

__all__ = ["main"]
