"""Domains, hierarchies and labelled pictures, each by the loader of its kind."""

from typing import overload

from geodapt.data.chains import Hierarchy
from geodapt.data.domain import Domain, LabelledDomain
from geodapt.data.hierarchy_settings import HierarchySettings
from geodapt.data.picture_settings import PictureSource
from geodapt.data.settings import ClassificationSettings, DataSettings, SequenceKinds
from geodapt.data.vision.pictures import Pictures


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


def load_hierarchy(settings: HierarchySettings) -> Hierarchy:
    """The chains to tune on and to measure, by the loader of their kind.

    Raises :class:`geodapt.errors.InputError` where the data is not there, malformed, or too little.
    """
    return settings.load()


def load_labelled_pictures(settings: PictureSource) -> Pictures:
    """The pictures that settings name.

    Raises :class:`InputError` for what is missing, cannot be read, or does not keep the contract.
    """
    return settings.load()
