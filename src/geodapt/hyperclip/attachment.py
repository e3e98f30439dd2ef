"""Scalings on a model: attached to its attention projections, saved alone, folded away."""

import warnings
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from geodapt.adapters.execution.hooks import Attachment
from geodapt.cards import write_card
from geodapt.errors import InputError, InputWarning
from geodapt.files import atomic_folder, read_tensors, write_json, write_tensors
from geodapt.hyperclip.projections import (
    Projection,
    base_hash,
    choose_projections,
    projections,
)
from geodapt.hyperclip.scaling import BlockScaling, mobius_scaled
from geodapt.hyperclip.settings import ScalingSettings
from geodapt.models.saved_tensors import require_shapes
from geodapt.paths import given as given_path
from geodapt.settings import Settings

CONFIG, WEIGHTS = "hyperclip_config.json", "hyperclip.safetensors"


class SavedScaling(Settings):
    """``hyperclip_config.json``."""

    settings: ScalingSettings
    base: str = ""
    """Name or folder of the base, for a reader."""
    base_sha256: str | None = None
    """Hash of the base's projections (:func:`geodapt.hyperclip.projections.base_hash`)."""


class Scaling(nn.Module):
    """The scalings of one model's projections; made by :func:`scale` or :meth:`load`.

    Its parameters are the only ones that train. The model keeps its type, names and state dict:
    each scaled layer gets a ``forward`` of its own, until :meth:`fold` or :meth:`detach`.
    """

    def __init__(self, model: nn.Module, settings: ScalingSettings) -> None:
        super().__init__()
        found = projections(model)
        self.settings = settings
        self.base = str(getattr(model, "name_or_path", "") or "")
        self.base_sha256 = base_hash(found)
        self._chosen = _chosen_projections(found, settings)
        blocks = [_new_block(projection, settings) for projection in self._chosen]
        self.blocks = nn.ModuleList(blocks)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        model.requires_grad_(False)
        self._attachments = [
            Attachment(projection.module, _scaled(block, settings))
            for projection, block in zip(self._chosen, blocks, strict=True)
        ]

    @property
    def places(self) -> list[str]:
        """Names of the scaled layers, from their tower on."""
        return [projection.place for projection in self._chosen]

    @property
    def attached(self) -> bool:
        """Whether the model computes with the scalings: neither folded nor detached."""
        return bool(self._attachments)

    def deltas(self) -> dict[str, Tensor]:
        """``D`` of each scaled layer, ``(blocks, n, n)``, by the names in the saved file."""
        return {
            f"{place}.delta": block.get_parameter("delta")
            for place, block in zip(self.places, self.blocks, strict=True)
        }

    def detach(self) -> None:
        """Take the scalings off: the model computes bit by bit as it did before :func:`scale`."""
        for attachment in self._attachments:
            attachment.detach()
        self._attachments = []
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self._trained = []

    @torch.no_grad()
    def fold(self) -> None:
        """Write ``W S^T`` into the weights, rounded once from float64, and detach.

        In the Mobius form what is written is that form's, which its clamps make another weight
        where rows are long.

        Raises :class:`InputError`, before a weight changes, for weights that are quantized or
        offloaded, and where the scalings are not attached.
        """
        if not self.attached:
            raise InputError("the scalings are not on the model: folded or detached before")
        for projection in self._chosen:
            if projection.quantized or projection.module.weight.is_meta:
                raise InputError(
                    f"{projection.place} is quantized or offloaded, so nothing can be folded into "
                    "it; keep the scalings attached, or fold them into the full-precision base"
                )
        for projection, module in zip(self._chosen, self.blocks, strict=True):
            block: Any = module
            weight: Any = projection.module.weight
            if self.settings.form == "mobius":
                weight.copy_(mobius_scaled(weight, block.matrix(), self.settings.curvature))
            else:
                weight.copy_(block.folded(weight))
        self.detach()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``hyperclip.safetensors`` and ``hyperclip_config.json``, for :meth:`load`."""
        saved = SavedScaling(settings=self.settings, base=self.base, base_sha256=self.base_sha256)
        with atomic_folder(given_path(folder)) as temporary:
            write_tensors(temporary / WEIGHTS, self.deltas())
            write_json(temporary / CONFIG, saved.model_dump(mode="json"))
            write_card(
                temporary,
                "HyperCLIP scaling",
                "Block-diagonal scalings of a CLIP's attention weights.",
                base=self.base or None,
                relation="adapter",
                tags=["hyperclip"],
                facts={"block": self.settings.block, "layers": len(self.places)},
                usage=(
                    "from geodapt.hyperclip import Scaling\n\n"
                    'scaling = Scaling.load(model, "this folder")\n'
                    "scaling.fold()"
                ),
            )

    @classmethod
    def load(cls, model: nn.Module, folder: Path | str) -> Self:
        """Attach saved scalings to their base.

        Raises :class:`InputError` for files that are not as :meth:`save_pretrained` writes them,
        and for another base; a base whose weights cannot be compared (float16, quantized) is
        taken with an :class:`~geodapt.errors.InputWarning`.
        """
        folder = given_path(folder)
        saved, tensors = SavedScaling.read(folder / CONFIG), read_tensors(folder / WEIGHTS)
        require_shapes(folder / WEIGHTS, tensors, _expected_shapes(model, saved.settings))
        own = base_hash(projections(model))
        if own != saved.base_sha256:
            base = f" ('{saved.base}')" if saved.base else ""
            if own and saved.base_sha256:
                raise InputError(
                    f"{folder} scales another base{base}: the model's attention weights are not "
                    "those that it was trained on, or it is folded into them already"
                )
            _warn_not_compared(folder, base)
        scaling = cls(model, saved.settings)
        with torch.no_grad():
            for name, delta in scaling.deltas().items():
                delta.copy_(tensors[name])
        return scaling


def scale(model: nn.Module, settings: ScalingSettings | None = None) -> Scaling:
    """Attach scalings, the identity at first, to a CLIP, SigLIP, OWL-ViT, OWLv2 or CLIPSeg.

    The model is frozen; a head beside it may be set to train again afterwards. CLIPSeg computes its
    CLIP without gradients: train ``model.clip`` by itself, and use it in the whole model.

    Raises :class:`InputError` for a block that does not divide a width, a tower or layer that the
    model lacks, and a model that is scaled already.
    """
    return Scaling(model, settings or ScalingSettings())


def _chosen_projections(found: list[Projection], settings: ScalingSettings) -> list[Projection]:
    """The projections that the settings scale."""
    given = settings.layers
    per_tower = given if isinstance(given, dict) else {}
    if isinstance(given, list):
        per_tower = {tower: given for tower in settings.towers}
    chosen = choose_projections(found, settings.matrices, settings.towers, per_tower)
    if settings.dense:
        last = max((p.layer for p in found if p.tower == "image"), default=-1)
        chosen = [
            p
            for p in chosen
            if not (p.tower == "image" and p.layer == last and p.matrix != "value")
        ]
    if not chosen:
        raise InputError("the settings choose no projection; give more layers or matrices")
    return chosen


def _new_block(projection: Projection, settings: ScalingSettings) -> BlockScaling:
    module = projection.module
    if _is_scaled(module):
        raise InputError(f"{projection.place} is scaled already; fold or detach that scaling first")
    if settings.form in {"weight", "mobius"} and projection.quantized:
        raise InputError(
            f"{projection.place} is quantized, so its weight cannot be scaled; set form to "
            "'activation'"
        )
    dtype = module.weight.dtype if module.weight.dtype == torch.float64 else torch.float32
    device = None if module.weight.is_meta else module.weight.device
    try:
        return BlockScaling(module.in_features, settings.block, settings.shared, dtype, device)
    except InputError as error:
        raise InputError(f"{projection.place}: {error}") from error


def _scaled(block: BlockScaling, settings: ScalingSettings) -> Any:
    """What a scaled layer computes, ``run(module, base, h)`` of an attachment."""
    settings = settings.model_copy()

    def run(module: nn.Linear, base: Any, h: Tensor) -> Tensor:
        form = settings.form
        # Where another library wraps the layer's method or its weight, only its input is ours.
        plain = _multiplies_plainly(module, base)
        if form == "auto" or not plain:
            tokens = h.numel() // block.width
            form = block.cheaper_form(tokens, module.out_features) if plain else "activation"
        if form == "activation":
            return base(block(h))
        if form == "weight":
            return linear(h, block.weight(module.weight), module.bias)
        weight = mobius_scaled(module.weight, block.matrix(), settings.curvature)
        return linear(h, weight, module.bias)

    run.scaling = block  # type: ignore[attr-defined]
    return run


def _multiplies_plainly(module: nn.Linear, base: Any) -> bool:
    """Whether ``base``, the layer's own method, is ``linear(h, weight, bias)`` of plain tensors."""
    own = getattr(base, "func", None) is nn.Linear.forward
    return own and type(module.weight) is nn.Parameter and module.weight.is_floating_point()


def _is_scaled(module: nn.Module) -> bool:
    attachment = getattr(getattr(module.forward, "__func__", None), "attachment", None)
    return hasattr(getattr(attachment, "run", None), "scaling")


def _expected_shapes(model: nn.Module, settings: ScalingSettings) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for projection in _chosen_projections(projections(model), settings):
        count = 1 if settings.shared else projection.module.in_features // settings.block
        shapes[f"{projection.place}.delta"] = (count, settings.block, settings.block)
    return shapes


def _warn_not_compared(folder: Path, base: str) -> None:
    warnings.warn(
        InputWarning(
            f"the weights of the model could not be compared with those of the base{base} that "
            f"{folder} was trained on, since a copy of them is float16 or quantized"
        ),
        stacklevel=3,
    )
