"""Text to train language models on, by the loader of its kind."""

from geodapt.data.corpus.corpus import Corpus
from geodapt.data.corpus.settings import CorpusSettings


def load_corpus(settings: CorpusSettings) -> Corpus:
    """The documents that the settings describe.

    Raises :class:`geodapt.errors.InputError` where the text is not there or cannot be read.
    """
    return settings.load()
