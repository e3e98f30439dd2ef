"""Sequences and classified texts of several domains, by the loader of their kind."""

from typing import overload

from geodapt.data.amazon import load_amazon
from geodapt.data.api_calls import load_api_calls
from geodapt.data.classification import load_classification
from geodapt.data.domain import Domain, LabelledDomain
from geodapt.data.interaction_files import load_interactions
from geodapt.data.movielens import load_movielens
from geodapt.data.settings import (
    AmazonSettings,
    ApiCallSettings,
    ClassificationSettings,
    DataSettings,
    InteractionFileSettings,
    MovieLensSettings,
    SequenceKinds,
)


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
        case InteractionFileSettings():
            return load_interactions(settings)
        case ClassificationSettings():
            return load_classification(settings)
