"""Text of a data set on the Hugging Face hub, such as Wikipedia, streamed."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from datasets import load_dataset

from geodapt.data.corpus.corpus import Corpus, document_split
from geodapt.data.corpus.settings import NAME_COLUMN, HubSettings
from geodapt.errors import InputError, reason_of
from geodapt.files import short_hash
from geodapt.hub import require_hub
from geodapt.progress import bar


def load_hub(settings: HubSettings) -> Corpus:
    """The documents of a hub data set, split by a hash of their text.

    Raises :class:`InputError` where the data set cannot be reached or has no such column.
    """
    return Corpus(
        settings.name,
        short_hash(settings.model_dump()),
        lambda: ((document_split(text, settings.seed), text) for text in _read(settings)),
    )


def _read(settings: HubSettings) -> Iterator[str]:
    rows = islice(_open(settings), settings.max_documents)
    with bar(f"reading {settings.name}", settings.max_documents) as progress:
        for number, row in enumerate(rows):
            text = row.get(settings.text)
            if not isinstance(text, str):
                raise InputError(
                    f"{settings.name}, row {number + 1}: column '{settings.text}' holds no text; "
                    f"it has {', '.join(row)}. {NAME_COLUMN}"
                )
            progress.advance()
            if text.strip():
                yield text


def _open(settings: HubSettings) -> Any:
    require_hub(settings.name)  # a stream has no cache
    try:
        return load_dataset(settings.name, settings.config, split=settings.split, streaming=True)
    except Exception as error:  # whatever the hub, the network or the builder raises
        raise InputError(
            f"data set '{settings.name}' could not be opened on the hub "
            f"({reason_of(error)}); check its name, "
            "config and split and the network, or give the path of a file or folder that is here "
            "(kind: text)"
        ) from error
