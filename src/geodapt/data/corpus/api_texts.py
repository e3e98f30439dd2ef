"""Built-in short texts: the names and docstrings of installed packages' public functions."""

from importlib.metadata import version

from geodapt.data.api_calls import ApiCallSettings, distribution, load_api_calls
from geodapt.data.corpus.corpus import Corpus, document_split
from geodapt.data.corpus.settings import ApiTextsSettings
from geodapt.files import short_hash


def load_api_texts(settings: ApiTextsSettings) -> Corpus:
    """The texts of the packages' items, split by a hash of the text.

    Raises :class:`geodapt.errors.InputError` for a package that is unknown or not installed.
    """
    domains = load_api_calls(ApiCallSettings.model_validate({"domains": settings.packages}))
    depends = [settings.model_dump(), [version(distribution(name)) for name in domains]]
    return Corpus(
        "api-calls",
        short_hash(depends),
        lambda: (
            (document_split(text, settings.seed), text)
            for domain in domains.values()
            for text in domain.items["text"]
        ),
        {"packages": list(domains)},
    )
