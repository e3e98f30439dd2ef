"""Labelled pictures from whatever a recipe names, in one contract."""

from geodapt.data.picture_settings import PictureSource
from geodapt.data.vision.pictures import Pictures


def load_labelled_pictures(settings: PictureSource) -> Pictures:
    """The pictures that settings name.

    Raises :class:`InputError` for what is missing, cannot be read, or does not keep the contract.
    """
    return settings.load()
