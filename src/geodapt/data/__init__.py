"""Real data in several domains: what is on every machine already, and the public data sets.

>>> from geodapt.data import ApiCallSettings, load_domains
>>> domains = load_domains(ApiCallSettings(domains=["networkx"]))  # doctest: +SKIP
>>> domains["networkx"].splits["test"][0]  # doctest: +SKIP
"""

from typing import Annotated, overload

from pydantic import Field

from geodapt.data.amazon import AmazonSettings, load_amazon
from geodapt.data.api_calls import ApiCallSettings, load_api_calls, module_tree
from geodapt.data.classification import ClassificationSettings, load_classification
from geodapt.data.domain import Domain, LabelledDomain
from geodapt.data.movielens import MovieLensSettings, load_movielens

DataSettings = Annotated[
    ApiCallSettings | AmazonSettings | MovieLensSettings | ClassificationSettings,
    Field(discriminator="kind"),
]
"""Where data comes from: the ``data:`` part of a recipe, told apart by its ``kind``."""

SequenceKinds = ApiCallSettings | AmazonSettings | MovieLensSettings


@overload
def load_domains(settings: SequenceKinds) -> dict[str, Domain]: ...
@overload
def load_domains(settings: ClassificationSettings) -> dict[str, LabelledDomain]: ...
def load_domains(settings: DataSettings) -> dict[str, Domain] | dict[str, LabelledDomain]:
    """The domains of a data set, in the order asked for.

    Each is a :class:`LabelledDomain` where ``settings.kind`` is ``classification``, else a
    :class:`Domain`. Raises :class:`geodapt.errors.InputError` where the data is not there, is
    malformed, or is too little for what the settings ask.
    """
    match settings:
        case ApiCallSettings():
            return load_api_calls(settings)
        case AmazonSettings():
            return load_amazon(settings)
        case MovieLensSettings():
            return load_movielens(settings)
        case ClassificationSettings():
            return load_classification(settings)


__all__ = [
    "AmazonSettings",
    "ApiCallSettings",
    "ClassificationSettings",
    "DataSettings",
    "Domain",
    "LabelledDomain",
    "MovieLensSettings",
    "load_domains",
    "module_tree",
]
