"""Text to train language models on, by the loader of its kind."""

from geodapt.data.corpus.api_texts import load_api_texts
from geodapt.data.corpus.corpus import Corpus
from geodapt.data.corpus.docs import load_docs
from geodapt.data.corpus.hub import load_hub
from geodapt.data.corpus.settings import (
    ApiTextsSettings,
    CorpusSettings,
    DocsSettings,
    HubSettings,
    TextSettings,
)
from geodapt.data.corpus.text import load_text


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
