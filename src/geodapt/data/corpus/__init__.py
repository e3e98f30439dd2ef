"""Text to train language models on: what is on every machine already, files, and the hub.

>>> from geodapt.data.corpus import DocsSettings, load_corpus
>>> corpus = load_corpus(DocsSettings())  # doctest: +SKIP
>>> next(corpus.documents("train"))  # doctest: +SKIP
"""

from typing import Annotated

from pydantic import Field

from geodapt.data.corpus.api_texts import ApiTextsSettings, load_api_texts
from geodapt.data.corpus.corpus import Corpus
from geodapt.data.corpus.docs import DocsSettings, load_docs
from geodapt.data.corpus.hub import HubSettings, load_hub
from geodapt.data.corpus.text import TextSettings, load_text

CorpusSettings = Annotated[
    ApiTextsSettings | DocsSettings | TextSettings | HubSettings,
    Field(discriminator="kind"),
]
"""Where text comes from: the ``data:`` part of a recipe, told apart by its ``kind``."""


def load_corpus(settings: CorpusSettings) -> Corpus:
    """The documents that the settings describe.

    Raises :class:`geodapt.errors.InputError` where the text is not there or cannot be read.
    """
    match settings:
        case ApiTextsSettings():
            return load_api_texts(settings)
        case DocsSettings():
            return load_docs(settings)
        case TextSettings():
            return load_text(settings)
        case HubSettings():
            return load_hub(settings)


__all__ = [
    "ApiTextsSettings",
    "Corpus",
    "CorpusSettings",
    "DocsSettings",
    "HubSettings",
    "TextSettings",
    "load_corpus",
]
