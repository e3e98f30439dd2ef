"""What a segmenter makes of pages: mean IoU of seen and new classes, by level, and its radius."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.page_classes import VOID, PageClasses
from geodapt.hyperclip.radius import radius_table
from geodapt.metrics import ResampledIoU, SegmentationMetrics
from geodapt.progress import track
from geodapt.tinyclip.zero_shot import zero_shot
from geodapt.vision.towers import image_tower

if TYPE_CHECKING:
    from datasets import Dataset

    from geodapt.data.glyphs import Glyphs

PICTURES = 1000
"""Most single characters of the zero-shot test."""


def evaluate_pages(
    segmenter: OpenSegmenter, pages: "Dataset", levels: Sequence[PageClasses]
) -> dict[int, tuple[SegmentationMetrics, ResampledIoU]]:
    """Counted pixels of each level, asked for all its classes at once; paper does not count."""
    counted = {
        each.level: (
            SegmentationMetrics(each.names, VOID),
            ResampledIoU(len(each.names), VOID),
        )
        for each in levels
    }
    texts = [segmenter.word_vectors(each.names) for each in levels]
    for page in track(pages, "segmenting pages", len(pages)):
        mask = np.array(page["mask"])
        found = segmenter.segment_lists(page["image"], texts)
        for each, predicted in zip(levels, found, strict=True):
            labels = each.labels(mask)
            metrics, resampled = counted[each.level]
            metrics.update(predicted, labels)
            resampled.update(predicted, labels)
    return counted


def page_figures(
    counted: Mapping[int, SegmentationMetrics], levels: Sequence[PageClasses]
) -> dict[str, Any]:
    """The row of the table: both means at the last level, of seen and new classes, and by level."""
    found: dict[str, Any] = {}
    for each in levels:
        found[f"miou_level_{each.level}"] = counted[each.level].means()["miou_truth"]
    main, metrics = levels[-1], counted[levels[-1].level]
    every = metrics.means()
    found["miou"], found["miou_union"] = every["miou_truth"], every["miou_union"]
    found["pixel_accuracy"] = every["pixel_accuracy"]
    found["miou_seen"] = metrics.means(main.seen)["miou_truth"]
    found["miou_new"] = metrics.means(main.new)["miou_truth"]
    return {key: value for key, value in found.items() if value is not None}


def resampled_figures(
    resampled: ResampledIoU, seen: Sequence[int], new: Sequence[int]
) -> dict[str, list[float | None]]:
    """Mean IoU of all, seen and new classes in each resampled set; None where a set has none."""
    found = {"miou": None, "miou_seen": seen, "miou_new": new}
    sets = {key: resampled.means(only) for key, only in found.items()}
    return {
        key: [None if value != value else value for value in values.tolist()]  # NaN
        for key, values in sets.items()
        if not values.isnan().all()
    }


def zero_shot_accuracy(segmenter: OpenSegmenter, glyphs: "Glyphs") -> float:
    """Share of single known characters, in other fonts, whose name is the nearest of all names."""
    pictures = glyphs.splits["test"]
    step = max(1, len(pictures) // PICTURES)
    some = pictures.select(range(0, len(pictures), step))
    clip = segmenter.clip
    images = clip.embed_images(some["image"])
    names = clip.embed_texts([captions[-1] for captions in glyphs.classes["captions"]])
    return zero_shot(images, names, torch.tensor(some["label"][:]))["hit_at_1"]


@torch.no_grad()
def radius_report(
    segmenter: OpenSegmenter, glyphs: "Glyphs", pages: "Dataset", levels: Sequence[PageClasses]
) -> list[dict[str, Any]]:
    """Norm and hyperbolic radius of texts by level, of single characters, and of pages' patches.

    Patches only of a CLIP, whose projection their features pass before they are scaled to length 1.
    """
    clip = segmenter.clip
    texts, groups = [], []
    for each in levels:
        texts.append(clip.text_features(each.names))
        groups += [f"Texts, level {each.level}"] * len(each.names)
    rows = radius_table(torch.cat(texts), groups)
    pictures = glyphs.splits["test"]
    some_pictures = pictures.select(range(min(256, len(pictures))))["image"]
    images = clip.image_features(some_pictures)
    rows += radius_table(images, ["Single characters"] * len(images))
    projection = image_tower(clip.model).projection
    if not isinstance(projection, nn.Identity):
        with _outputs(projection) as patches:
            for page in pages.select(range(min(8, len(pages)))):
                clip.dense_features(clip.normalise([page["image"]]), segmenter.settings.residual)
        vectors = torch.cat(patches).flatten(0, -2).cpu()
        rows += radius_table(vectors, ["Patches of pages"] * len(vectors))
    return rows


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module computes within the block."""
    found: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, args, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()
