"""Labelled pictures from whatever a recipe names, in one contract."""

from geodapt.data.glyph_settings import CharacterSetSettings, OmniglotSettings
from geodapt.data.picture_settings import PictureSource
from geodapt.data.vision.coop_layout import load_coop
from geodapt.data.vision.image_folder import (
    load_class_folders,
    load_picture_table,
    load_split_file,
)
from geodapt.data.vision.pictures import Pictures
from geodapt.data.vision.settings import (
    ClassFolderSettings,
    CoopSettings,
    PictureTableSettings,
    SplitFileSettings,
)


def load_labelled_pictures(settings: PictureSource) -> Pictures:
    """The pictures that settings name.

    Raises :class:`InputError` for what is missing, cannot be read, or does not keep the contract.
    """
    match settings:
        case CoopSettings():
            return load_coop(settings)
        case SplitFileSettings():
            return load_split_file(settings)
        case ClassFolderSettings():
            return load_class_folders(settings)
        case PictureTableSettings():
            return load_picture_table(settings)
        case CharacterSetSettings():
            from geodapt.data.glyphs.sets import load_character_set

            return load_character_set(settings)
        case OmniglotSettings():
            from geodapt.data.glyphs.handwriting import load_omniglot

            return load_omniglot(settings)
