"""The command line. What it imports takes a moment, in which it may be stopped, too."""

import sys


def main() -> None:
    """Run the command line. Errors that the user can fix end with status 2 and no traceback."""
    try:
        from geodapt.cli.app import run_app
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        raise SystemExit(130) from None
    run_app()
