"""What a segmenter makes of pages: mean IoU of seen and new classes, by level, and its radius."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from geodapt.hyperclip.heads import resized
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.page_classes import VOID, PageClasses
from geodapt.hyperclip.radius import radius_table
from geodapt.metrics import SegmentationMetrics
from geodapt.progress import track
from geodapt.tinyclip.zero_shot import zero_shot
from geodapt.vision.towers import image_tower

if TYPE_CHECKING:
    from datasets import Dataset

    from geodapt.data.glyphs import Glyphs

PAGES_AT_ONCE = 2
PICTURES = 1000
"""Most single characters of the zero-shot test."""


@torch.no_grad()
def evaluate_pages(
    segmenter: OpenSegmenter, pages: "Dataset", levels: Sequence[PageClasses]
) -> dict[int, SegmentationMetrics]:
    """Counted pixels of each level, asked for all its classes at once; paper does not count."""
    segmenter.eval()
    counted = {each.level: SegmentationMetrics(each.names, VOID) for each in levels}
    texts = {each.level: segmenter.word_vectors(each.names) for each in levels}
    for start in track(range(0, len(pages), PAGES_AT_ONCE), "segmenting pages"):
        some = pages[start : start + PAGES_AT_ONCE]
        pixels = segmenter.clip.normalise([image.convert("RGB") for image in some["image"]])
        masks = [np.array(mask) for mask in some["mask"]]
        for each in levels:
            logits = resized(segmenter(pixels, texts[each.level]), pixels.shape[2:])
            labels = torch.stack([each.labels(mask) for mask in masks])
            counted[each.level].update(logits.argmax(1).cpu(), labels)
    return counted


def page_figures(
    counted: Mapping[int, SegmentationMetrics], levels: Sequence[PageClasses], main: int
) -> dict[str, Any]:
    """The row of the table: both means at the main level, of seen and new classes, and by level."""
    found: dict[str, Any] = {}
    for each in levels:
        metrics = counted[each.level]
        found[f"miou_level_{each.level}"] = metrics.means()["miou_truth"]
        if each.level == main:
            every = metrics.means()
            found["miou"], found["miou_union"] = every["miou_truth"], every["miou_union"]
            found["pixel_accuracy"] = every["pixel_accuracy"]
            found["miou_seen"] = metrics.means(each.seen)["miou_truth"]
            found["miou_new"] = metrics.means(each.new)["miou_truth"]
    return {key: value for key, value in found.items() if value is not None}


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
        for start in range(0, len(each.names), 64):
            some = each.names[start : start + 64]
            texts.append(clip.texts.vectors(clip.tokens(some)).cpu())
            groups += [f"Texts, level {each.level}"] * len(some)
    rows = radius_table(torch.cat(texts), groups)
    pictures = glyphs.splits["test"]
    some_pictures = pictures.select(range(min(256, len(pictures))))["image"]
    features = clip.model.get_image_features(**clip.pixels(some_pictures))
    images = getattr(features, "pooler_output", features).cpu()
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
