"""Sentences around class names, and a class's vector as the mean over them.

Source: Radford et al. 2021, "Learning transferable visual models from natural language
supervision", section 3.1.4; the lists are those published with CLIP.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.checks import texts_of
from geodapt.errors import InputError
from geodapt.vision.clip import Clip

PHOTO = ("a photo of a {}.",)

BEST_SEVEN = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven that do about as well on ImageNet as all eighty."""

_PHOTOS = (
    *("bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white"),
    *("pixelated", "jpeg corrupted", "blurry", "good"),
)
_SEEN = ("hard to see", "clean", "dirty", "cool", "nice", "weird", "large", "small")
_WORKS = (
    *("a sculpture", "a rendering", "a tattoo", "a drawing", "a painting", "a doodle", "a sketch"),
    *("a rendition", "graffiti", "art", "itap", "a photo"),
)
_MADE = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")

IMAGENET = (
    *(f"a {kind} photo of {article} {{}}." for kind in _PHOTOS for article in ("a", "the")),
    *(f"a photo of {article} {kind} {{}}." for kind in _SEEN for article in ("a", "the")),
    *(f"{work} of {article} {{}}." for work in _WORKS for article in ("a", "the")),
    *(f"{article} {kind} {{}}." for kind in _MADE for article in ("a", "the")),
    *(f"{article} {{}} in a video game." for article in ("a", "the")),
    *("a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}."),
)
"""CLIP's eighty templates for ImageNet; the mean does not depend on their order."""

_NOT_OF_SIXTY = (
    *("a black and white photo of a {}.", "a dark photo of a {}.", "a drawing of the {}."),
    *("a good photo of a {}.", "a jpeg corrupted photo of the {}.", "a photo of a cool {}."),
    *("a photo of a small {}.", "a photo of the large {}.", "a photo of the nice {}."),
    *("a photo of the small {}.", "a photo of the weird {}.", "a plushie {}.", "the plushie {}."),
    *("a tattoo of the {}.", "a toy {}.", "art of the {}.", "graffiti of the {}.", "itap of a {}."),
    *("itap of my {}.", "the cartoon {}."),
)
SIXTY = tuple(template for template in IMAGENET if template not in _NOT_OF_SIXTY)
"""The first sixty of the published order, which PromptSRC's frozen texts are the mean of."""


def fill_templates(names: Sequence[str], templates: Sequence[str] = PHOTO) -> list[list[str]]:
    """Each name in each template: a row of texts per name.

    Raises :class:`InputError` for no template, for one that has not exactly one ``{}``, and for an
    empty name.
    """
    names, templates = texts_of(names, "class names"), texts_of(templates, "templates")
    if not templates:
        raise InputError("there are no templates; give at least '{}'")
    for template in templates:
        if template.count("{}") != 1:
            raise InputError(f"template '{template}' needs exactly one {{}} for the class's name")
    for number, name in enumerate(names):
        if not name.strip():
            raise InputError(f"class {number} has an empty name")
    return [[template.replace("{}", name) for template in templates] for name in names]


def embed_classes(
    clip: Clip, names: Sequence[str], templates: Sequence[str] = PHOTO
) -> Float[Tensor, "classes d"]:
    """A unit vector per class: the mean of the unit vectors of its texts, made a unit vector.

    Raises :class:`InputError` as :func:`fill_templates` does, and for no classes.
    """
    rows = fill_templates(names, templates)
    vectors = clip.embed_texts([text for row in rows for text in row])
    means = vectors.unflatten(0, (len(rows), len(templates))).mean(1)
    return nn.functional.normalize(means, dim=-1)


def embed_synonyms(
    clip: Clip, names: Sequence[Sequence[str]], templates: Sequence[str] = PHOTO
) -> Float[Tensor, "classes d"]:
    """As :func:`embed_classes`, for classes of several names: the mean over the names as well."""
    names = [texts_of(synonyms, "a class's names") for synonyms in names]
    for number, synonyms in enumerate(names):
        if not synonyms:
            raise InputError(f"class {number} has no name")
    vectors = embed_classes(clip, [name for synonyms in names for name in synonyms], templates)
    parts = vectors.split([len(synonyms) for synonyms in names])
    return nn.functional.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)
