"""Where labelled pictures come from: the ``data:`` part of a recipe of prompts.

Apart from the loaders, so that a recipe is checked before anything heavy is imported.
"""

from typing import Annotated

from pydantic import Field

from geodapt.data.glyph_settings import CharacterSetSettings, OmniglotSettings
from geodapt.data.vision.settings import (
    ClassFolderSettings,
    CoopSettings,
    PictureTableSettings,
    SplitFileSettings,
)

PictureSource = Annotated[
    CoopSettings
    | SplitFileSettings
    | ClassFolderSettings
    | PictureTableSettings
    | CharacterSetSettings
    | OmniglotSettings,
    Field(discriminator="kind"),
]
"""What a recipe may name as pictures."""
