"""A source of text named in one word, as command-line options take it."""

import re
from typing import Annotated

from pydantic import BeforeValidator

from geodapt.data.corpus.settings import (
    PLAIN,
    RECORDS,
    ApiTextsSettings,
    CorpusSettings,
    DocsSettings,
    HubSettings,
    TextSettings,
)
from geodapt.errors import InputError
from geodapt.paths import given

BUILT_IN: dict[str, type[ApiTextsSettings] | type[DocsSettings]] = {
    "api-calls": ApiTextsSettings,
    "docs": DocsSettings,
}
ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")
HUB_DOCUMENTS = 10_000
"""Documents that are read of a hub data set, so that a sample does not fetch all of Wikipedia."""


def named(source: str) -> CorpusSettings:
    """The settings for a source's name.

    ``api-calls`` and ``docs`` are built in; a file or a folder is text of one's own, each record or
    line of it a document; ``owner/name`` or ``owner/name:config`` is a data set on the hub, of
    which the first 10,000 documents are read. Raises :class:`InputError` for anything else.
    """
    if source in BUILT_IN:
        return BUILT_IN[source]()
    if source and given(source).exists():
        return TextSettings(path=given(source), lines=True)
    at_hub = ON_THE_HUB.fullmatch(source)
    if at_hub is None or source[0] in "./" or source.endswith((*PLAIN, *RECORDS)):
        raise InputError(
            f"{source or 'an empty name'} does not exist; give a text, JSONL or Parquet file, a "
            "folder of such, api-calls or docs (built in), or a hub data set as owner/name:config"
        )
    name, config = at_hub.groups()
    return HubSettings(name=name, config=config, max_documents=HUB_DOCUMENTS)


TextSource = Annotated[
    CorpusSettings,
    BeforeValidator(lambda given: named(given) if isinstance(given, str) else given),
]
"""Where text comes from, in full or in a word that :func:`named` understands."""
