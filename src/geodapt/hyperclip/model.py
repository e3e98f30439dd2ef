"""An open-vocabulary segmenter: a picture and words in, a word for each pixel out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodapt.checks import number
from geodapt.errors import InputError
from geodapt.files import write_tensors
from geodapt.hyperclip.heads import CosineHead, CostAggregation, resized
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.settings import SegmenterSettings
from geodapt.models.saved_tensors import load_saved_tensors
from geodapt.prompts.adapter import ADAPTER, read_feature_adapter, write_feature_adapter
from geodapt.vision import Clip, load_clip, slide
from geodapt.vision.dense import DenseFeatures
from geodapt.vision.images import as_rgb
from geodapt.vision.towers import image_tower

if TYPE_CHECKING:
    from PIL.Image import Image

HEAD, CLIP = "head.safetensors", "clip"
NO_WORD = -1
"""The label of pixels that show none of the words."""
CLASSES_AT_ONCE = 64
"""Classes that are upsampled to pixels at a time: memory does not grow with their number."""


class OpenSegmenter(OpenModel):
    """A CLIP or SigLIP with a dense head. No word is in its weights.

    >>> segmenter = OpenSegmenter.from_pretrained("runs/pages/model")  # doctest: +SKIP
    >>> segmenter.segment(image, ["Latin letter", "arrow", "digit"])  # doctest: +SKIP
    """

    called, config, needed, kind = "segmenter", "config.json", (HEAD,), SegmenterSettings

    def __init__(self, clip: Clip, settings: SegmenterSettings | None = None) -> None:
        """With an untrained head."""
        super().__init__()
        self.take_settings(settings)
        self.clip, self.clip_model = clip, clip.model
        tower = image_tower(clip.model)
        self.layers = _guiding_layers(len(tower.layers))
        self.window = self.settings.window or tower.side or 16 * tower.patch
        if self.window % tower.patch:
            raise InputError(
                f"a window of {self.window} pixels does not divide into patches of {tower.patch}"
            )
        self.head: nn.Module = CosineHead()
        if self.settings.head == "cost":
            embedding = clip.model.get_text_features(**clip.tokens(["word"]))
            width = getattr(embedding, "pooler_output", embedding).shape[-1]
            self.head = CostAggregation(width, tower.width, self.settings.cost)
        self.head.to(clip.model.device)
        self.text_adapter: Any = None
        """A :class:`geodapt.prompts.adapter.FeatureAdapter` that refines words, or none."""

    # Batches, with gradients

    def forward(
        self, pixels: Float[Tensor, "images 3 height width"], texts: Float[Tensor, "classes d"]
    ) -> Float[Tensor, "images classes h w"]:
        """Logits of texts' vectors on the head's grid, of normalised pixels that patches divide."""
        dense = self.dense(pixels)
        return self.head(dense.features, texts, dense.hidden)

    def dense(self, pixels: Float[Tensor, "images 3 height width"]) -> DenseFeatures:
        """The CLIP's features of places, and the layers that the head is guided by."""
        layers = self.layers if self.settings.head == "cost" else ()
        return self.clip.dense_features(pixels, self.settings.residual, layers)

    def word_vectors(self, words: Sequence[str | Sequence[str]]) -> Float[Tensor, "words d"]:
        """Those of the words as they are; refined where there is an adapter."""
        vectors = super().word_vectors(words)
        if self.text_adapter is None:
            return vectors
        with torch.no_grad():
            return nn.functional.normalize(self.text_adapter.refine(vectors), dim=-1)

    # Pictures of any size, without gradients

    @torch.no_grad()
    def segment(
        self,
        image: "Image",
        words: Sequence[str | Sequence[str]],
        threshold: float | None = None,
    ) -> Int[Tensor, "height width"]:
        """The number of each pixel's most likely word, on the CPU.

        A word may be a list of synonyms. Where no word's probability reaches ``threshold`` the
        label is -1; without one, every pixel gets a word.
        """
        if threshold is not None:
            number("threshold", threshold, "a probability from 0 to 1")
        texts = self.word_vectors(words)
        best, labels = _likeliest(self._pieces(image, texts, _parts(0, len(texts))))
        if threshold is not None:
            labels = labels.masked_fill(best.sigmoid() < threshold, NO_WORD)
        return labels

    @torch.no_grad()
    def segment_lists(
        self, image: "Image", lists: Sequence[Float[Tensor, "words d"]]
    ) -> list[Int[Tensor, "height width"]]:
        """The labels of a picture by each of several lists of words, of :meth:`word_vectors`.

        The same as :meth:`segment` by each; where the head looks at words one by one, the picture
        passes the CLIP once.
        """
        if not len(lists):
            return []
        if self.settings.head != "cosine":
            return [
                _likeliest(self._pieces(image, texts, _parts(0, len(texts))))[1] for texts in lists
            ]
        every, labels, start = torch.cat(list(lists)), [], 0
        parts = []
        for texts in lists:
            parts.append(_parts(start, start + len(texts)))
            start += len(texts)
        pieces = self._pieces(image, every, [part for own in parts for part in own])
        for own in parts:
            found = [next(pieces) for _ in own]
            labels.append(_likeliest(found)[1] - own[0].start)
        return labels

    @torch.no_grad()
    def probabilities(
        self, image: "Image", words: Sequence[str | Sequence[str]]
    ) -> Float[Tensor, "words height width"]:
        """How likely each pixel shows each word, on the CPU: sigmoids, which do not add up to 1."""
        texts = self.word_vectors(words)
        pieces = self._pieces(image, texts, _parts(0, len(texts)))
        return torch.cat([part.sigmoid() for _, part in pieces])

    def _pieces(
        self, image: "Image", texts: Tensor, parts: Sequence[slice]
    ) -> Iterator[tuple[int, Tensor]]:
        """Some words at a time: the number of the first, their logits at the image's own size."""
        training, settings = self.training, self.settings
        self.eval()
        image = as_rgb(image)
        size = (image.height, image.width)
        scale = settings.short_side / min(size) if settings.short_side else 1.0
        inner = (max(1, round(scale * image.height)), max(1, round(scale * image.width)))
        picture = self.clip.normalise([image], inner)[0]
        stride = settings.stride or max(1, 2 * self.window // 3)
        windows: list[Tensor] = []
        whole = None
        if settings.whole:
            whole = self(self.clip.normalise([image], (self.window, self.window)), texts)
        for some in parts:
            compute = self._on_windows(texts, some, windows)
            logits = slide(compute, picture, self.window, stride)
            if whole is not None:
                logits = (logits + resized(whole[:, some], inner)[0]) / 2
            found = resized(logits[None], size)[0].cpu()
            if some is parts[-1]:
                self.train(training)
            yield some.start, found

    def _on_windows(
        self, texts: Tensor, some: slice, known: list[Tensor]
    ) -> Callable[[Tensor], Tensor]:
        """Logits of some words for :func:`slide`; ``known`` keeps those of all on the head's grid.

        The windows come in the same order for every part of the words, so each passes once.
        """
        numbers = count()

        def compute(windows: Tensor) -> Tensor:
            number = next(numbers)
            if number == len(known):
                known.append(self(windows, texts))
            return resized(known[number][:, some], (self.window, self.window))

        return compute

    # Saving

    def write_parts(self, folder: Path) -> list[str]:
        self.clip.model.save_pretrained(folder / CLIP)
        self.clip.processor.save_pretrained(folder / CLIP)
        write_tensors(folder / HEAD, self.head.state_dict())
        if self.text_adapter is None:
            return []
        write_feature_adapter(self.text_adapter, folder)
        return [ADAPTER]

    @classmethod
    def read_parts(cls, folder: Path, settings: SegmenterSettings, extra: Collection[str]) -> Self:
        segmenter = cls(load_clip(str(folder / CLIP)), settings)
        load_saved_tensors(segmenter.head, folder / HEAD)
        if ADAPTER in extra:
            segmenter.text_adapter = read_feature_adapter(folder)
        return segmenter

    def card(self) -> dict[str, Any]:
        return {
            "title": "Open-vocabulary segmenter",
            "summary": "A CLIP with a dense head, which labels every pixel with one of any words.",
            "tags": ["hyperclip", "image-segmentation"],
            "facts": {"head": self.settings.head, "window": self.window},
            "usage": (
                "from geodapt.hyperclip import OpenSegmenter\n\n"
                'segmenter = OpenSegmenter.from_pretrained("this folder")\n'
                'segmenter.segment(image, ["dog", "grass", "sky"])'
            ),
        }


def _parts(start: int, end: int) -> list[slice]:
    """The words of a list, some at a time."""
    return [
        slice(first, min(first + CLASSES_AT_ONCE, end))
        for first in range(start, end, CLASSES_AT_ONCE)
    ]


def _likeliest(pieces: Iterable[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """The largest logit of each pixel and the number of its word."""
    best = labels = None
    for start, part in pieces:
        value, place = part.max(0)
        if best is None or labels is None:
            best, labels = value, place + start
        else:
            labels = torch.where(value > best, place + start, labels)
            best = torch.maximum(value, best)
    assert best is not None
    assert labels is not None
    return best, labels


def _guiding_layers(count: int) -> tuple[int, int]:
    """Image layers whose states guide the decoder: 4 and 8 of 12, 8 and 16 of 24."""
    return max(1, count // 3), max(1, 2 * count // 3)
