"""Model cards: what a folder holds, what it was made from and how, in the hub's form.

The names of sources come from other people's files and folders: a path is cut to its last part,
and nothing in a name becomes markup.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.files import write_text

CARD = "README.md"
MADE_BY = "geodapt"
"""The tag of the cards that geodapt writes, and may write anew."""


def write_card(
    folder: Path | str,
    title: str,
    summary: str,
    *,
    base: str | None = None,
    relation: str | None = None,
    library: str = "geodapt",
    tags: Iterable[str] = (),
    facts: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    usage: str = "",
) -> None:
    """Write ``README.md`` into a folder, unless somebody else wrote the one that is there.

    Args:
        folder: the folder, which exists.
        title: what it is called.
        summary: a sentence or two on what it holds.
        base: the base model's name on the hub, or its folder, of which only the last part is said.
        relation: how it came from the base, in the hub's words: adapter, finetune, merge or
            quantized.
        library: what loads it, in the hub's words.
        tags: more tags.
        facts: how it was made: method, rank, steps, ...; values of None are left out.
        sources: a row for each thing that it was made from: name, weight, sha256, ...
        usage: Python that loads it.
    """
    from huggingface_hub import ModelCardData

    folder = Path(folder)
    if not is_ours(folder):
        return
    on_hub = base is not None and is_hub_name(base)
    data = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation=relation if on_hub else None,
        library_name=library,
        tags=list(dict.fromkeys([MADE_BY, *tags])),
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {plain(title)}", summary]
    rows = {key: value for key, value in (facts or {}).items() if value is not None}
    if base is not None:
        rows = {"base": short(base), **rows}
    if rows or sources:
        parts.append("## How it was made")
    if rows:
        parts.append(_table([{"": key, " ": value} for key, value in rows.items()]))
    if sources:
        parts.append("From:")
        parts.append(_table(sources))
    if usage:
        parts += ["## Use", f"```python\n{usage.strip()}\n```"]
    write_text(folder / CARD, "\n\n".join(parts) + "\n")


def is_ours(folder: Path) -> bool:
    """Whether a folder's card is missing, or one that geodapt wrote."""
    path = folder / CARD
    if not path.is_file():
        return not path.exists()
    try:
        head = path.read_text(encoding="utf-8")[:10_000]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return re.search(rf"^- {MADE_BY}$", head.partition("\n---")[0], re.MULTILINE) is not None


def is_hub_name(name: str) -> bool:
    """Whether a name can be one of the hub: ``owner/name`` or ``name``, and no folder here."""
    return re.fullmatch(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?", name) is not None and not (
        Path(name).exists()
    )


def short(name: str | Path) -> str:
    """A name fit for publishing: a hub name whole, of a path only the last part."""
    text = str(name).rstrip("/")
    return text if is_hub_name(text) else text.rpartition("/")[2]


def plain(value: Any) -> str:
    """A value as text that is no markup, on one line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(one) for one in value)
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", text[:500])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[plain(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
