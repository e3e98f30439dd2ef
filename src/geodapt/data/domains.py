"""Sequences and classified texts of several domains, by the loader of their kind."""

from typing import overload

from geodapt.data.domain import Domain, LabelledDomain
from geodapt.data.settings import ClassificationSettings, DataSettings, SequenceKinds


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
    return settings.load()
