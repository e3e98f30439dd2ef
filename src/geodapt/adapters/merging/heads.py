"""Modules that adapters bring trained in full, in a merge: carried over, never merged."""

from collections.abc import Sequence

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.peft_files.saved_modules import Head, holder_of, same_head
from geodapt.errors import InputError

REMEDY = (
    "leave heads out by adapter.without_heads(), of all or of all but one (--heads none, --heads "
    "first)"
)


def carried(adapters: Sequence[Adapter]) -> dict[str, Head]:
    """The heads of a merged adapter: those of the adapters, where no two differ.

    Raises :class:`InputError` for two different heads at one module, and for a head where
    another adapter has factors.
    """
    heads: dict[str, Head] = {}
    for place, adapter in enumerate(adapters, 1):
        for path, head in adapter.heads.items():
            other = holder_of(path, heads) or next((p for p in heads if holder_of(p, [path])), None)
            if other is not None and not (other == path and same_head(heads[path], head)):
                raise InputError(
                    f"adapter {place} of {len(adapters)} and one before it each bring their own "
                    f"{path} (modules_to_save), and heads cannot be merged; {REMEDY}"
                )
            heads[path] = head
    for place, adapter in enumerate(adapters, 1):
        touched = next((path for path in adapter.touched if holder_of(path, heads)), None)
        if touched is not None:
            raise InputError(
                f"adapter {place} of {len(adapters)} changes {touched}, which another one brings "
                f"trained in full (modules_to_save); {REMEDY}"
            )
    return heads
