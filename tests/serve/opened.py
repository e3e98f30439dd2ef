"""What a block of a test opens, and names that would lead it astray."""

import sys
from contextlib import contextmanager

HOSTILE = [
    *("..", ".", "../secret", "/etc", "a/../../secret", "%2e%2e", "..\\secret", ".hidden"),
    *("toys\0", "", "sha256", "aliases.json", "toys/", "toys/adapter_config.json"),
    *("a" * 101, "link", "ünï"),
]
_watched = []


@contextmanager
def opened():
    """The paths that are opened or listed inside the block, by any thread."""
    paths = []
    _watched.append(paths)
    try:
        yield paths
    finally:
        _watched.remove(paths)


def _watch(event, arguments):
    """An audit hook, which cannot be taken away again."""
    if _watched and event in ("open", "os.listdir", "os.scandir"):
        for paths in _watched:
            paths.append(str(arguments[0]))


sys.addaudithook(_watch)
