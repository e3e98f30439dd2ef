"""The recipes `hyperclip` and `hyperclip-pictures`: tune a CLIP for segmentation by each method."""

from typing import Literal

from geodapt.hyperclip.picture_settings import PictureTuningSettings
from geodapt.hyperclip.scene_settings import DetectionSettings, PanopticSettings
from geodapt.hyperclip.tuning_settings import HyperClipSettings
from geodapt.runs import Recipe


class HyperClipRecipe(HyperClipSettings, Recipe):
    """Teach a CLIP to segment pages by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip"] = "hyperclip"
    experiment = "geodapt.hyperclip.page_experiment:PageExperiment"


class PictureTuningRecipe(PictureTuningSettings, Recipe):
    """Teach a CLIP to segment pictures by words, and test it on other data sets."""

    recipe: Literal["hyperclip-pictures"] = "hyperclip-pictures"
    experiment = "geodapt.hyperclip.picture_experiment:PictureExperiment"


class DetectionRecipe(DetectionSettings, Recipe):
    """Teach a CLIP to find objects by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip-detection"] = "hyperclip-detection"
    experiment = "geodapt.hyperclip.detection_experiment:DetectionExperiment"


class PanopticRecipe(PanopticSettings, Recipe):
    """Teach a CLIP to find segments by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip-panoptic"] = "hyperclip-panoptic"
    experiment = "geodapt.hyperclip.panoptic_experiment:PanopticExperiment"


RECIPES = (HyperClipRecipe, PictureTuningRecipe, DetectionRecipe, PanopticRecipe)
