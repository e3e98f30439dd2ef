"""An open-vocabulary detector: a picture and words in, boxes with words out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.owl import owl_from_clip, owl_towers, read_texts_at
from geodapt.hyperclip.settings import DetectorSettings
from geodapt.models import as_input_errors, load_weights, locate_base, pretrained
from geodapt.vision import Clip
from geodapt.vision.images import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

OWL = "owl"
MOST = 100
"""Boxes of a picture at most, unless others are asked for; what COCO's measure takes."""
GREY = (128, 128, 128)
"""What OWLv2 fills pictures up with to a square."""


@dataclass(frozen=True)
class Detections:
    """Boxes of one picture, the likeliest first."""

    boxes: Float[Tensor, "n 4"]
    """x, y, width, height in pixels, within the picture."""
    scores: Float[Tensor, " n"]
    """Probabilities; those of a box need not add up to 1."""
    labels: Int[Tensor, " n"]
    """Numbers of the words."""


class OpenDetector(OpenModel):
    """An OWL-ViT or OWLv2, of which each patch proposes a box. No word is in its weights.

    >>> detector = OpenDetector.load("google/owlvit-base-patch16")  # doctest: +SKIP
    >>> detector.detect(image, ["dog", "ball"])  # doctest: +SKIP
    """

    called, config, kind = "detector", "detector.json", DetectorSettings
    other_readers = ", or read a model of transformers by OpenDetector.load"

    def __init__(
        self, model: Any, processor: Any, settings: DetectorSettings | None = None, name: str = ""
    ) -> None:
        """Of a model of transformers with its processor."""
        super().__init__()
        self.take_settings(settings)
        self.model = model
        towers = owl_towers(model)
        read_texts_at(towers, processor.tokenizer.eos_token_id)
        self.clip = Clip(towers, processor, name)
        self.side: int = model.config.vision_config.image_size
        self.squares = model.config.model_type == "owlv2"

    @classmethod
    def from_clip(cls, clip: Clip, side: int, settings: DetectorSettings | None = None) -> Self:
        """With copies of a CLIP's towers and untrained heads, for pictures of ``side`` pixels.

        See :func:`geodapt.hyperclip.owl.owl_from_clip`.
        """
        return cls(owl_from_clip(clip, side), clip.processor, settings, clip.name)

    @classmethod
    def load(cls, name: str, settings: DetectorSettings | None = None) -> Self:
        """An OWL-ViT or OWLv2 of transformers' own format, by its folder or hub name, frozen."""
        location = locate_base(name)
        with as_input_errors(name):
            model = load_weights(name, location, kind=AutoModelForZeroShotObjectDetection)
            processor = pretrained(AutoProcessor, location)
        return cls(model.requires_grad_(False).eval(), processor, settings, name)

    # Batches, with gradients

    def forward(
        self, pixels: Float[Tensor, "images 3 side side"], texts: Float[Tensor, "words d"]
    ) -> tuple[Float[Tensor, "images patches words"], Float[Tensor, "images patches 4"]]:
        """Logits of texts' vectors and the box of each patch of :meth:`pixels`.

        Boxes are the middle's x and y, width and height, as shares of the picture.
        """
        features, _ = self.model.image_embedder(pixel_values=pixels)
        flat = features.flatten(1, 2)
        logits, _ = self.model.class_predictor(flat, texts.expand(len(pixels), -1, -1))
        return logits, self.model.box_predictor(flat, features)

    def pixels(self, images: "Sequence[Image]") -> Float[Tensor, "images 3 side side"]:
        """Pictures as the model takes them: OWL-ViT's stretched, OWLv2's filled up to a square."""
        rgb = [as_rgb(image) for image in images]
        if self.squares:
            rgb = [_square(image) for image in rgb]
        return self.clip.normalise(rgb, (self.side, self.side))

    def extent(self, image: "Image") -> tuple[int, int]:
        """The width and height in pixels that shares of the model's boxes are shares of."""
        return (max(image.size),) * 2 if self.squares else image.size

    # Pictures of any size, without gradients

    def detect(
        self,
        image: "Image",
        words: Sequence[str | Sequence[str]],
        threshold: float = 0.1,
        most: int = MOST,
    ) -> Detections:
        """The boxes of a picture that show one of the words by at least ``threshold``, on the CPU.

        A word may be a list of synonyms. At most ``most`` pairs of a box and a word are returned.
        """
        return self.detect_all([image], self.word_vectors(words), threshold, most)[0]

    @torch.no_grad()
    def detect_all(
        self,
        images: "Sequence[Image]",
        texts: Float[Tensor, "words d"],
        threshold: float = 0.0,
        most: int = MOST,
    ) -> list[Detections]:
        """As :meth:`detect`, of several pictures at once and words that are vectors already."""
        training = self.training
        self.eval()
        logits, boxes = self(self.pixels(images), texts)
        self.train(training)
        return [
            _chosen(scores.float().cpu(), places.float().cpu(), image, self, threshold, most)
            for scores, places, image in zip(logits.sigmoid(), boxes, images, strict=True)
        ]

    # Saving

    def write_parts(self, folder: Path) -> list[str]:
        self.model.save_pretrained(folder / OWL)
        self.clip.processor.save_pretrained(folder / OWL)
        return []

    @classmethod
    def read_parts(cls, folder: Path, settings: DetectorSettings, extra: Collection[str]) -> Self:
        return cls.load(str(folder / OWL), settings)

    def card(self) -> dict[str, Any]:
        return {
            "title": "Open-vocabulary detector",
            "summary": "An OWL-ViT, which finds boxes that show any words.",
            "tags": ["hyperclip", "object-detection"],
            "facts": {"side": self.side},
            "usage": (
                "from geodapt.hyperclip import OpenDetector\n\n"
                'detector = OpenDetector.from_pretrained("this folder")\n'
                'detector.detect(image, ["dog", "ball"])'
            ),
        }


def _chosen(
    scores: Float[Tensor, "patches words"],
    boxes: Float[Tensor, "patches 4"],
    image: "Image",
    detector: OpenDetector,
    threshold: float,
    most: int,
) -> Detections:
    """The likeliest pairs of a box and a word, in pixels of the picture.

    Boxes of less than a pixel are none: a head that is hardly trained proposes many.
    """
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    corners = corners * torch.tensor(detector.extent(image) * 2)
    corners = torch.minimum(corners.clamp_min(0), torch.tensor(image.size * 2))
    corners[:, 2:] -= corners[:, :2]
    seen = (corners[:, 2:] >= 1).all(1)
    corners, scores = corners[seen], scores[seen]
    values, places = scores.flatten().topk(min(most, scores.numel()))
    keep = values >= threshold
    values, places = values[keep], places[keep]
    return Detections(corners[places // scores.shape[1]], values, places % scores.shape[1])


def _square(image: "Image") -> "Image":
    """The picture with grey below or to the right of it."""
    from PIL import Image as Pillow

    side = max(image.size)
    filled = Pillow.new("RGB", (side, side), GREY)
    filled.paste(image, (0, 0))
    return filled
