"""The recipes `hyperclip` and `hyperclip-pictures`: tune a CLIP for segmentation by each method."""

from typing import Any, Literal

from geodapt.hyperclip.picture_settings import PictureTuningSettings
from geodapt.hyperclip.scene_settings import DetectionSettings, PanopticSettings
from geodapt.hyperclip.tuning_settings import HyperClipSettings
from geodapt.runs import Recipe, RunFolder


class HyperClipRecipe(HyperClipSettings, Recipe):
    """Teach a CLIP to segment pages by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip"] = "hyperclip"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        from geodapt.hyperclip.page_experiment import PageExperiment

        found = PageExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


class PictureTuningRecipe(PictureTuningSettings, Recipe):
    """Teach a CLIP to segment pictures by words, and test it on other data sets."""

    recipe: Literal["hyperclip-pictures"] = "hyperclip-pictures"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.hyperclip.picture_experiment import PictureExperiment

        found = PictureExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


class DetectionRecipe(DetectionSettings, Recipe):
    """Teach a CLIP to find objects by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip-detection"] = "hyperclip-detection"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.hyperclip.detection_experiment import DetectionExperiment

        found = DetectionExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


class PanopticRecipe(PanopticSettings, Recipe):
    """Teach a CLIP to find segments by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip-panoptic"] = "hyperclip-panoptic"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.hyperclip.panoptic_experiment import PanopticExperiment

        found = PanopticExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (HyperClipRecipe, PictureTuningRecipe, DetectionRecipe, PanopticRecipe)
