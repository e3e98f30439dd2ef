"""Training and measuring a panoptic model by words."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.data.vision import PictureClasses, read_segments
from geodapt.data.vision.segments import NO_SEGMENT, Segments
from geodapt.hyperclip.batches import asked_words, drawn_by
from geodapt.hyperclip.masks import mask_loss
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.panoptic_model import OpenPanoptic
from geodapt.hyperclip.recipe import PanopticRecipe
from geodapt.hyperclip.scenes import LEFT_OUT, PictureRows, SceneClasses
from geodapt.hyperclip.tuned_towers import TowerTuner
from geodapt.metrics import PanopticMetrics
from geodapt.progress import track
from geodapt.vision.images import open_picture, require_size


class PanopticTuner(TowerTuner):
    """A panoptic model: masks and head train, and what a method chooses of the CLIP's towers."""

    def __init__(self, model: OpenPanoptic, method: TuningMethod, settings: PanopticRecipe) -> None:
        super().__init__(model.clip, method, settings)
        self.model, self.weight = model, settings.region_weight
        model.masker.requires_grad_(True)

    def forward(
        self, pixels: Tensor, masks: list[Tensor], labels: list[Tensor], **tokens: Tensor
    ) -> dict[str, Tensor]:
        """The loss of a batch of :class:`PanopticBatches`."""
        texts = self.model.clip.text_vectors(tokens)
        masks = [mask.to(pixels.device) for mask in masks]
        labels = [label.to(pixels.device) for label in labels]
        loss = mask_loss(self.model.masker, self.model(pixels, texts), masks, labels)
        if self.weight:
            loss = loss + self.weight * self._region_loss(pixels, texts, masks, labels)
        return {"loss": loss}

    def _region_loss(
        self,
        pixels: Tensor,
        texts: Float[Tensor, "words d"],
        masks: list[Tensor],
        labels: list[Tensor],
    ) -> Float[Tensor, ""]:
        """Cross-entropy of true segments' words by the CLIP's features alone, compared as in the
        ensemble: this is what tunes the image tower."""
        features = self.model.features(pixels)
        logits = [
            self.model.region_logits(features[place][None], own[None], texts)[0]
            for place, own in enumerate(masks)
        ]
        every = torch.cat(labels)
        if not len(every):
            return features.sum() * 0
        return nn.functional.cross_entropy(torch.cat(logits), every)

    def heads(self) -> list[nn.Parameter]:
        words = self.model.words
        return [*self.model.masker.parameters(), *(words.parameters() if words else ())]


class PanopticBatches:
    """Training batches: pictures, the words that a batch is asked for, and its segments by those.

    Segments of classes that training must not show, of those left out, and crowds are no targets.
    """

    def __init__(
        self,
        rows: Any,
        categories: PictureClasses,
        classes: SceneClasses,
        model: OpenPanoptic,
        asked: int,
    ) -> None:
        self.rows = panoptic_rows(rows)
        self.categories, self.classes, self.model, self.asked = categories, classes, model, asked
        self.template = model.settings.templates[0]

    def __len__(self) -> int:
        return len(self.rows)

    def collate(self, numbers: list[int]) -> dict[str, Any]:
        """What :class:`PanopticTuner` takes; the same rows give the same words."""
        images, segments = zip(
            *(picture_segments(self.rows[number], self.categories) for number in numbers),
            strict=True,
        )
        seen = set(self.classes.seen)
        kept = [
            [
                (number, label)
                for number, label in enumerate(self.classes.of(own.categories))
                if label in seen and not own.crowd[number]
            ]
            for own in segments
        ]
        shown = [label for own in kept for _, label in own]
        words = asked_words(shown, self.classes.seen, self.asked, drawn_by(numbers))
        place = {word: number for number, word in enumerate(words)}
        side = self.model.settings.side
        masks = [
            _squares(own, [number for number, _ in some], side)
            for own, some in zip(segments, kept, strict=True)
        ]
        labels = [
            torch.tensor([place[label] for _, label in some], dtype=torch.int64) for some in kept
        ]
        texts = [self.template.replace("{}", self.classes.names[word]) for word in words]
        return {
            "pixels": self.model.pixels(images),
            "masks": masks,
            "labels": labels,
            **self.model.clip.tokens(texts),
        }


def panoptic_rows(rows: Any) -> PictureRows:
    """The rows with what segments need, opened when they are asked for."""
    return PictureRows(
        rows.select_columns(["image", "segments", "segments_info"]), ("image", "segments")
    )


def picture_segments(row: dict[str, Any], categories: PictureClasses) -> tuple[Any, Segments]:
    """A row's picture as RGB and its segments; raises :class:`InputError` where they do not fit."""
    name = row["segments"] if isinstance(row["segments"], str) else ""
    image = open_picture(row["image"])
    segments = read_segments(row["segments"], row["segments_info"], categories, name)
    shown = row["image"] if isinstance(row["image"], str) else ""
    require_size(segments.places.shape, image.size, f"segments '{name}'", shown, many=True)
    return image, segments


def _squares(segments: Segments, numbers: list[int], side: int) -> Float[Tensor, "n side side"]:
    """The masks of some segments, stretched to a square; each pixel is of one segment."""
    places = torch.from_numpy(segments.places.astype(np.int32))[None, None].double()
    stretched = nn.functional.interpolate(places, (side, side), mode="nearest-exact")[0]
    return (stretched == torch.tensor(numbers).view(-1, 1, 1)).float()


def evaluate_panoptic(
    model: OpenPanoptic,
    rows: Any,
    categories: PictureClasses,
    classes: SceneClasses,
) -> tuple[PanopticMetrics, PanopticMetrics]:
    """Panoptic quality of pictures that are asked for all classes at once, and that of their masks,
    whatever their words. Segments of classes that are left out count for nothing."""
    metrics, alone = PanopticMetrics(classes.names), PanopticMetrics(["segment"])
    texts = model.word_vectors(classes.names)
    stuff, seen = set(classes.stuff), set(classes.seen)
    opened = panoptic_rows(rows)
    for number in track(range(len(opened)), "finding segments"):
        image, true = picture_segments(opened[number], categories)
        found = model.segment_texts(image, texts, stuff, seen)
        places, labels, crowd = true_segments(true, classes)
        mine, own = found.places.numpy(), found.labels.numpy()
        metrics.update(mine, own, places, labels, crowd)
        alone.update(mine, 0 * own, places, 0 * labels, crowd)
    return metrics, alone


def true_segments(
    segments: Segments, classes: SceneClasses
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, classes and crowds of what is asked for; pixels of the rest belong to no segment."""
    labels = np.array(classes.of(segments.categories.tolist()), dtype=np.int64)
    kept = np.flatnonzero(labels != LEFT_OUT)
    number = np.full(len(labels) + 1, NO_SEGMENT)
    number[kept] = np.arange(len(kept))
    return number[segments.places], labels[kept], segments.crowd[kept]


def panoptic_figures(
    metrics: PanopticMetrics, alone: PanopticMetrics, classes: SceneClasses
) -> dict[str, Any]:
    """PQ, SQ and RQ of all, seen and new classes, each PQ with its interval and its segments."""
    found: dict[str, Any] = {"pq_masks": alone.means()["pq"]}
    for name, only in (("", None), ("_seen", classes.seen), ("_new", classes.new)):
        means = metrics.means(only)
        if means["pq"] is None:
            continue
        for key in ("pq", "sq", "rq", "segments"):
            found[f"{key}{name}"] = means[key]
        found[f"pq{name}_interval"] = metrics.interval(only)
    return {key: value for key, value in found.items() if value is not None}
