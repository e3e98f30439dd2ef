"""An open-vocabulary panoptic model: a picture and words in, segments with words out."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from geodapt.errors import InputError
from geodapt.files import read_tensors, write_tensors
from geodapt.hyperclip.heads import resized
from geodapt.hyperclip.masks import (
    MaskWords,
    build_masker,
    check_sides,
    load_masker,
    pool_features,
)
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.segment_scores import FoundSegments, compose_segments, ensemble_scores
from geodapt.hyperclip.settings import MaskSettings, PanopticModelSettings
from geodapt.models import load_weights
from geodapt.models.saved_tensors import load_saved_tensors
from geodapt.vision import Clip, load_clip, slide
from geodapt.vision.images import as_rgb
from geodapt.vision.towers import image_tower

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP, MASKS, WORDS = "clip", "masks", "words.safetensors"
MOST_SIDE = 1024
"""Pixels of the longer side at which masks are compared; memory does not grow with larger ones."""


class OpenPanoptic(OpenModel):
    """Masks by a Mask2Former, and words for them by it and by a CLIP. No word is in its weights.

    >>> model = OpenPanoptic.from_pretrained("runs/pages/model")  # doctest: +SKIP
    >>> model.segments(image, ["dog", "grass", "sky"], stuff=["grass", "sky"])  # doctest: +SKIP
    """

    called, config, kind = "panoptic model", "panoptic.json", PanopticModelSettings

    def __init__(
        self,
        clip: Clip,
        masker: Mask2FormerForUniversalSegmentation,
        settings: PanopticModelSettings | None = None,
        words: MaskWords | None = None,
    ) -> None:
        """Without ``words``, no mask has a word but by the CLIP, and the Mask2Former's own classes
        say only whether a mask shows an object."""
        super().__init__()
        self.take_settings(settings)
        self.clip, self.clip_model = clip, clip.model
        tower = image_tower(clip.model)
        self.patch = tower.patch
        self.window = self.settings.window or min(
            self.settings.side, tower.side or 16 * tower.patch
        )
        check_sides(self.settings.side, self.patch, self.window)
        self.masker, self.words = masker, words

    @classmethod
    def from_clip(
        cls, clip: Clip, masks: MaskSettings, settings: PanopticModelSettings | None = None
    ) -> Self:
        """A CLIP, a Mask2Former from scratch or from a checkpoint, and an untrained
        :class:`MaskWords`, by torch's seed."""
        settings = settings or PanopticModelSettings()
        if masks.checkpoint is None:
            masker = build_masker(masks)
        else:
            masker, (mean, deviation) = load_masker(masks.checkpoint)
            settings = settings.model_copy(update={"mean": mean, "deviation": deviation})
        texts = clip.embed_texts(["word"])
        config: Any = masker.config
        words = MaskWords(config.hidden_dim, config.mask_feature_size, texts.shape[-1])
        model = cls(clip, masker, settings, words)
        return model.to(clip.model.device)

    @classmethod
    def load(
        cls, clip: Clip, checkpoint: str, settings: PanopticModelSettings | None = None
    ) -> Self:
        """A Mask2Former by its folder or hub name, and a CLIP alone for the words: no training.

        Masks are those that the checkpoint was trained to find; its class names do not matter.
        """
        settings = settings or PanopticModelSettings()
        masker, (mean, deviation) = load_masker(checkpoint)
        settings = settings.model_copy(update={"mean": mean, "deviation": deviation})
        return cls(clip, masker, settings).to(clip.model.device).requires_grad_(False).eval()

    # Batches, with gradients

    def pixels(self, images: "Sequence[Image]") -> Float[Tensor, "images 3 side side"]:
        """Pictures as :meth:`forward` takes them: stretched to a square, in the CLIP's range."""
        side = self.settings.side
        return self.clip.normalise([as_rgb(image) for image in images], (side, side))

    def forward(
        self, pixels: Float[Tensor, "images 3 side side"], texts: Float[Tensor, "words d"]
    ) -> list[dict[str, Tensor]]:
        """Of each layer of the decoder, the last one last: logits of masks on a quarter of the
        pixels, ``masks_queries_logits``, and of words and no object, ``class_queries_logits``."""
        config: Any = self.masker.config
        found = self.masker.model(self._recoloured(pixels), output_hidden_states=True)
        states = [state.transpose(0, 1) for state in found.transformer_decoder_intermediate_states]
        features = found.pixel_decoder_last_hidden_state
        layers = []
        for state, masks in zip(states, found.masks_queries_logits, strict=True):
            if self.words is None:
                own = self.masker.class_predictor(state).softmax(-1)
                void = own[..., -1:].clamp(1e-6, 1 - 1e-6)
                # Every word alike: only whether it is an object is known.
                each = ((1 - void) / len(texts)).expand(*void.shape[:2], len(texts))
                logits = torch.cat([each, void], -1).log()
            else:
                logits = self.words(state, masks, features, texts)
            layers.append({"masks_queries_logits": masks, "class_queries_logits": logits})
        assert len(layers) == config.decoder_layers
        return layers

    def features(
        self, pixels: Float[Tensor, "images 3 side side"]
    ) -> Float[Tensor, "images d rows columns"]:
        """The CLIP's dense features of pictures, in windows of its own size, side by side."""

        def compute(windows: Tensor) -> Tensor:
            return self.clip.dense_features(windows, self.settings.residual).features

        maps = [
            slide(compute, picture, self.window, self._stride, at_once=16, cell=self.patch)
            for picture in pixels
        ]
        return nn.functional.normalize(torch.stack(maps), dim=1)

    def region_logits(
        self,
        features: Float[Tensor, "images d rows columns"],
        masks: Float[Tensor, "images n h w"],
        texts: Float[Tensor, "words d"],
    ) -> Float[Tensor, "images n words"]:
        """The CLIP's own logits of masks, by its features where they are; zeros of empty ones."""
        pooled = nn.functional.normalize(pool_features(features, masks), dim=-1)
        return self.clip.logits(pooled, texts)

    # Pictures of any size, without gradients

    def segments(
        self,
        image: "Image",
        words: Sequence[str | Sequence[str]],
        stuff: Sequence[str] | None = None,
        seen: Sequence[str] | None = None,
    ) -> FoundSegments:
        """The segments of a picture and their words.

        A word may be a list of synonyms. ``stuff`` are those of the words that have no objects
        which could be counted, and ``seen`` those that training showed, which the trained head
        decides more; where they are not given, the settings' own, as far as they are asked for.

        Raises :class:`InputError` for no words, and for stuff that is none of them.
        """
        names = [{word} if isinstance(word, str) else set(word) for word in words]
        for word in stuff or ():
            if not any(word in own for own in names):
                raise InputError(f"'{word}' is to be stuff, but it is none of the words")
        texts = self.word_vectors(words)
        known = set(self.settings.stuff if stuff is None else stuff)
        trained = set(self.settings.seen if seen is None else seen)
        return self.segment_texts(
            image,
            texts,
            {number for number, own in enumerate(names) if own & known},
            {number for number, own in enumerate(names) if own & trained},
        )

    @torch.no_grad()
    def segment_texts(
        self,
        image: "Image",
        texts: Float[Tensor, "words d"],
        stuff: set[int],
        seen: set[int],
    ) -> FoundSegments:
        """As :meth:`segments`, of words that are vectors already, by their numbers."""
        training, settings = self.training, self.settings
        self.eval()
        image = as_rgb(image)
        pixels = self.pixels([image])
        last = self(pixels, texts)[-1]
        masks = last["masks_queries_logits"]
        inside = (masks > 0).to(pixels.dtype)
        covers: Bool[Tensor, " queries"] = inside[0].flatten(1).any(1)
        clip = self.region_logits(self.features(pixels), inside, texts)
        self.train(training)
        share = torch.full((len(texts),), settings.beta, device=texts.device)
        share[sorted(seen)] = settings.alpha
        if self.words is None:
            share.fill_(1.0)
        scores, void = ensemble_scores(
            last["class_queries_logits"][0].float(), clip[0].float(), share, covers
        )
        scale = min(1.0, MOST_SIDE / max(image.size))
        size = (max(1, round(scale * image.height)), max(1, round(scale * image.width)))
        large = resized(masks.float().cpu(), size)[0]
        found = compose_segments(
            scores.cpu(), void.cpu(), large, stuff, settings.threshold, settings.overlap
        )
        if scale == 1:
            return found
        whole = nn.functional.interpolate(
            found.places[None, None].double(), (image.height, image.width), mode="nearest-exact"
        )
        return FoundSegments(whole[0, 0].long(), found.labels, found.scores)

    @property
    def _stride(self) -> int:
        """Windows lie side by side; the last ones of a picture overlap those before."""
        return self.window

    def _recoloured(self, pixels: Tensor) -> Tensor:
        """The CLIP's range of pixels in that of the Mask2Former."""
        made = self.clip.processor.image_processor
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=pixels.device, dtype=pixels.dtype).view(3, 1, 1)
            for values in (
                made.image_mean,
                made.image_std,
                self.settings.mean,
                self.settings.deviation,
            )
        )
        return (pixels * std + mean - own_mean) / own_std

    # Saving

    def write_parts(self, folder: Path) -> list[str]:
        self.clip.model.save_pretrained(folder / CLIP)
        self.clip.processor.save_pretrained(folder / CLIP)
        self.masker.save_pretrained(folder / MASKS)
        if self.words is None:
            return []
        write_tensors(folder / WORDS, self.words.state_dict())
        return [WORDS]

    @classmethod
    def read_parts(
        cls, folder: Path, settings: PanopticModelSettings, extra: Collection[str]
    ) -> Self:
        masker: Any = load_weights(
            str(folder / MASKS), str(folder / MASKS), kind=Mask2FormerForUniversalSegmentation
        )
        words = None
        if WORDS in extra:
            config, void = masker.config, read_tensors(folder / WORDS).get("void", ())
            words = MaskWords(config.hidden_dim, config.mask_feature_size, len(void))
            load_saved_tensors(words, folder / WORDS)
        return cls(load_clip(str(folder / CLIP)), masker, settings, words).requires_grad_(False)

    def card(self) -> dict[str, Any]:
        return {
            "title": "Open-vocabulary panoptic model",
            "summary": "A Mask2Former and a CLIP, which find segments and name them by any words.",
            "tags": ["hyperclip", "image-segmentation"],
            "facts": {"side": self.settings.side, "window": self.window},
            "usage": (
                "from geodapt.hyperclip import OpenPanoptic\n\n"
                'model = OpenPanoptic.from_pretrained("this folder")\n'
                'model.segments(image, ["dog", "grass", "sky"], stuff=["grass", "sky"])'
            ),
        }
