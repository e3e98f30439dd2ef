"""What a run's page shows of an adapter: places on the disk, and each attribute's neighbours."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.data.vision.pictures import Pictures
from geodapt.geometry import lorentz
from geodapt.geometry.mds import embed_distances
from geodapt.lathadapter.adapter import LatHAdapter
from geodapt.lathadapter.meaning import (
    ancestor_shares,
    nearest_to_attributes,
    radius_order,
    tree_agreement,
)
from geodapt.vision.images import as_rgb, png_text, shrunk

PICTURES, CLASSES = 60, 40
"""The most of each on the disk, evenly spaced over the rows."""
WORDS, SHOWN = 5, 8
"""Words and pictures of an attribute's strip."""
THUMBNAIL = 48
"""Pixels of a picture's longer side in a strip."""


@torch.no_grad()
def attribute_page(
    adapter: LatHAdapter,
    pictures: Pictures,
    images: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    texts: Float[Tensor, "c d"],
) -> dict[str, Any]:
    """Places, strips and agreement with the known tree, as JSON.

    ``images`` are the features of the training pictures, with their ``labels``.
    """
    attributes = adapter.active_attributes()
    refined, sized = adapter.refine(texts), adapter.sized(images)
    shares = ancestor_shares(adapter.distances(sized, attributes), labels, len(texts))
    words = nearest_to_attributes(attributes, refined, WORDS)
    near = nearest_to_attributes(attributes, images, SHOWN)
    rows = pictures.splits["train"]
    strips = [
        {
            "number": number + 1,
            "words": [pictures.names[place] for place in words[number].tolist()],
            "pictures": [
                png_text(shrunk(as_rgb(rows[place]["image"]), THUMBNAIL))
                for place in near[number].tolist()
            ],
            "share": float(shares[:, number].mean()),
        }
        for number in range(len(attributes))
    ]
    return {
        "disk": disk_places(adapter, pictures.names, attributes, refined, sized, labels),
        "strips": strips,
        "tree": _tree(pictures, shares),
        "radius_order": radius_order(adapter.radii(attributes), shares),
    }


def disk_places(
    adapter: LatHAdapter,
    names: tuple[str, ...],
    attributes: Tensor,
    refined: Tensor,
    sized: Tensor,
    labels: Tensor,
) -> dict[str, Any]:
    """Classes, attributes and pictures in the plane, their distances kept as well as possible.

    ``x`` and ``y`` lie in the Poincare disk of radius 1; ``distortion`` is the mean relative error
    of the distances.
    """
    some = _spread(len(sized), PICTURES)
    classes = _spread(len(refined), CLASSES)
    points = torch.cat([refined[classes], attributes, sized[some]])
    distances = adapter.distances(points, points).double().fill_diagonal_(0)
    distances = (distances + distances.T) / 2
    c = float(adapter.curvature)
    placed = embed_distances(distances, dim=2, c=c)
    x, y = (lorentz.to_poincare(placed.points, c) * c**0.5).T.tolist()
    kinds = ["class"] * len(classes) + ["attribute"] * len(attributes) + ["picture"] * len(some)
    texts = [
        *(names[place] for place in classes),
        *(f"attribute {number + 1}" for number in range(len(attributes))),
        *(names[int(labels[place])] for place in some),
    ]
    return {"x": x, "y": y, "kind": kinds, "text": texts, "distortion": placed.distortion}


def _spread(count: int, most: int) -> list[int]:
    return torch.linspace(0, count - 1, min(count, most)).round().long().unique().tolist()


def _tree(pictures: Pictures, shares: Tensor) -> list[dict[str, Any]]:
    """Agreement with each level of the known tree that has several captions, but its leaves."""
    found = []
    depth = min(map(len, pictures.captions or [()]))
    for level in range(depth - 1):
        groups = [path[level] for path in pictures.captions or ()]
        if len(set(groups)) > 1:
            found.append({"level": level + 1, **vars(tree_agreement(shares, groups))})
    return found
