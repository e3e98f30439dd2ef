"""The segments of a picture: which pixels belong together, and to which class."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from geodapt.data.vision.features import PictureClasses
from geodapt.errors import InputError
from geodapt.settings import repeated
from geodapt.vision.images import open_segments

if TYPE_CHECKING:
    from PIL.Image import Image

NO_SEGMENT = -1


@dataclass(frozen=True)
class Segments:
    """Segments of one picture, numbered from 0 in the order of their list."""

    places: Int[np.ndarray, "h w"]
    """The number of each pixel's segment, :data:`NO_SEGMENT` where there is none."""
    categories: Int[np.ndarray, " segments"]
    """The class number of each."""
    crowd: Bool[np.ndarray, " segments"]
    """Whether it holds many objects of its class."""

    def masks(self) -> Bool[np.ndarray, "segments h w"]:
        """The pixels of each segment."""
        return self.places == np.arange(len(self.categories))[:, None, None]


def read_segments(
    source: "Path | str | bytes | Image",
    info: dict[str, Any],
    classes: PictureClasses,
    name: str = "",
) -> Segments:
    """The columns ``segments`` and ``segments_info`` of a row.

    A listed segment without a pixel is dropped: published sets have some, and COCO's own measure
    does not count them. Raises :class:`InputError` for an id in the picture that is not listed, one
    that is listed twice or as 0, lists of different lengths, a category that is no class, and two
    segments of one class of stuff.
    """
    ids, categories = list(info["id"]), list(info["category"])
    crowd = [bool(one) for one in (info.get("crowd") or [False] * len(ids))]
    if not len(ids) == len(categories) == len(crowd):
        raise InputError(
            f"segments '{name}' list {len(ids)} ids, {len(categories)} categories and "
            f"{len(crowd)} crowds"
        )
    if twice := repeated(ids):
        raise InputError(f"segments '{name}' list the id {twice[0]} twice")
    if 0 in ids:
        raise InputError(f"segments '{name}' list the id 0, which stands for no segment")
    for category in categories:
        if not 0 <= category < len(classes.names):
            raise InputError(
                f"segments '{name}' have the class {category}, but there are "
                f"{len(classes.names)} classes, counted from 0"
            )
    if twice := repeated([category for category in categories if category in classes.stuff]):
        raise InputError(
            f"segments '{name}' have two of '{classes.names[twice[0]]}', which is stuff; make them "
            "one"
        )
    values = open_segments(source, name)
    shown, inverse = np.unique(values, return_inverse=True)
    if unknown := sorted(set(shown.tolist()) - {0, *ids}):
        raise InputError(
            f"segments '{name}' show the id {unknown[0]}, which their list lacks; it has "
            f"{len(ids)} ids"
        )
    present = [place for place, one in enumerate(ids) if one in set(shown.tolist())]
    number = {ids[place]: new for new, place in enumerate(present)}
    places = np.array([number.get(value, NO_SEGMENT) for value in shown.tolist()])
    return Segments(
        places[inverse].reshape(values.shape),
        np.array(categories, dtype=np.int64)[present],
        np.array(crowd, dtype=bool)[present],
    )
