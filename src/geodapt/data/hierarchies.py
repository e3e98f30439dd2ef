"""Hierarchies of texts, by the loader of their kind."""

from geodapt.data.chains import Hierarchy
from geodapt.data.hierarchy_settings import HierarchySettings


def load_hierarchy(settings: HierarchySettings) -> Hierarchy:
    """The chains to tune on and to measure, by the loader of their kind.

    Raises :class:`geodapt.errors.InputError` where the data is not there, malformed, or too little.
    """
    return settings.load()
