"""The recipes of HyperCLIP: tune a CLIP by each method, to segment or to find things by words."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geodapt.data.glyph_settings import GlyphSettings, PageSettings
from geodapt.data.vision.coco_settings import CocoBoxSettings, CocoPanopticSettings, YoloSettings
from geodapt.data.vision.settings import PictureSetSettings
from geodapt.extras import require_box_metrics
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.settings import MaskSettings, ScalingSettings, SegmenterSettings, WordShares
from geodapt.hyperclip.tuning_settings import SceneSettings, TuningSettings
from geodapt.runs import Recipe
from geodapt.settings import Name


class HyperClipRecipe(TuningSettings, Recipe):
    """Teach a CLIP to segment pages by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip"] = "hyperclip"
    experiment = "geodapt.hyperclip.page_experiment:PageExperiment"
    data: GlyphSettings = GlyphSettings()
    """Characters on the pages, with their captions."""
    pages: PageSettings = PageSettings()
    segmenter: SegmenterSettings = SegmenterSettings(templates=["{}"], window=64)
    """Its window is also the size of the crops that training sees."""
    level: int = Field(default=3, ge=1, le=4)
    """Level of the captions that are classes: 1 is the most general, 4 the characters' names."""


class PictureTuningRecipe(TuningSettings, Recipe):
    """Teach a CLIP to segment pictures by words, and test it on other data sets."""

    recipe: Literal["hyperclip-pictures"] = "hyperclip-pictures"
    experiment = "geodapt.hyperclip.picture_experiment:PictureExperiment"
    data: PictureSetSettings
    """The data set that trains: its training split; a path alone will do. Its validation split is
    the first test."""
    test: dict[Name, PictureSetSettings] = {}
    """More data sets whose validation splits are tested, by a name of yours."""
    segmenter: SegmenterSettings = SegmenterSettings()
    """Its window is also the size of the crops that training sees."""
    pictures: int | None = Field(default=None, ge=1)
    """At most so many pictures of each test; all where none."""

    @model_validator(mode="after")
    def _no_chosen_radius(self) -> "PictureTuningRecipe":
        for name in self.methods:
            if TuningMethod.parse(name).radius == "auto" and not self.test:
                raise ValueError(
                    f"method '{name}' chooses by the data's validation split, which would then be "
                    "no test; give a test beside it"
                )
        return self

    def _smallest(self) -> dict[str, Any]:
        return {**super()._smallest(), "pictures": min(2, self.pictures or 2)}


def _paired(settings: Any) -> Any:
    """Refuse settings whose data that train do not go with those that are measured."""
    data, test = settings.data, settings.test
    if data.kind == "glyphs" and test is not None:
        raise ValueError("test: glyphs have test pages of their own; leave it out")
    if data.kind != "glyphs" and test is None:
        raise ValueError("test: give the set that is measured, as data gives the one that trains")
    if settings.split and not data.kind.startswith("coco"):
        raise ValueError(f"split: '{settings.split}' is of COCO's categories; data is {data.kind}")
    return settings


Boxes = Annotated[GlyphSettings | CocoBoxSettings | YoloSettings, Field(discriminator="kind")]


class DetectionRecipe(SceneSettings, Recipe):
    """Teach a CLIP to find objects by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip-detection"] = "hyperclip-detection"
    experiment = "geodapt.hyperclip.scene_experiment:DetectionExperiment"
    data: Boxes = GlyphSettings()
    """Characters on pages, or a training set of boxes."""
    test: Boxes | None = None
    """The set that is measured; of the data `glyphs` their own test pages."""
    side: int = Field(default=128, ge=8)
    """Pixels that pictures are stretched to, each way."""

    _has_a_test = model_validator(mode="after")(_paired)

    def require_inputs(self) -> None:
        super().require_inputs()
        require_box_metrics()


PanopticData = Annotated[GlyphSettings | CocoPanopticSettings, Field(discriminator="kind")]


class PanopticRecipe(WordShares, SceneSettings, Recipe):
    """Teach a CLIP to find segments by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip-panoptic"] = "hyperclip-panoptic"
    experiment = "geodapt.hyperclip.scene_experiment:PanopticExperiment"
    data: PanopticData = GlyphSettings()
    """Characters on pages, or a training set in COCO's panoptic format."""
    test: PanopticData | None = None
    """The set that is measured, whose classes may be others; of the data `glyphs` their own test
    pages."""
    side: int = Field(default=128, ge=32, le=4096)
    """Pixels that pictures are stretched to, each way."""
    scaling: ScalingSettings = ScalingSettings(dense=True)
    """Of the methods hyperclip-N, but for what their names say."""
    masks: MaskSettings = MaskSettings()
    region_weight: float = Field(default=1.0, ge=0)
    """Of the loss that tells the words of true masks by the CLIP's features alone."""

    _has_a_test = model_validator(mode="after")(_paired)


RECIPES = (HyperClipRecipe, PictureTuningRecipe, DetectionRecipe, PanopticRecipe)
