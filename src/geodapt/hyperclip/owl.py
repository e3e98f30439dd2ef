"""OWL-ViT from any CLIP: its towers, with heads for boxes and classes (Minderer et al. 2022)."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import OwlViTConfig, OwlViTForObjectDetection

from geodapt.errors import InputError
from geodapt.vision import Clip

TEXT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "hidden_act"),
    *("num_attention_heads", "max_position_embeddings", "layer_norm_eps", "pad_token_id"),
    *("bos_token_id", "eos_token_id"),
)
VISION = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("patch_size", "hidden_act", "layer_norm_eps"),
)
POSITIONS = "vision_model.embeddings.position_embedding.weight"
SCALE, SHIFT = 10.0, -0.46
"""Of the cosines at first: a patch and a word that have nothing in common match by 1 %, as the
focal loss wants it at the start (Lin et al. 2017, section 3.3)."""


def owl_towers(model: Any) -> Any:
    """The two towers of an OWL-ViT or OWLv2, as a model with CLIP's methods.

    Raises :class:`InputError` for any other model.
    """
    found = getattr(model, "owlvit", None) or getattr(model, "owlv2", None)
    if found is None or not hasattr(model, "box_predictor"):
        raise InputError(
            f"a {type(model).__name__} detects nothing by words; give an OWL-ViT or OWLv2, or make "
            "one of a CLIP by OpenDetector.from_clip"
        )
    return found


def read_texts_at(towers: Any, end: int | None) -> None:
    """Let a text's vector be the state of its first ``end`` token, as in CLIP.

    OWL-ViT takes the token of the largest number. In OpenAI's vocabulary that is the end; in
    others it is any.
    """

    def pool(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        ends = ids == end
        rows = torch.arange(len(ids), device=ids.device)
        states = output.last_hidden_state[rows, ends.int().argmax(-1)]
        output.pooler_output = torch.where(ends.any(-1, keepdim=True), states, output.pooler_output)
        return output

    if end is not None:
        towers.text_model.register_forward_hook(pool, with_kwargs=True)


def owl_from_clip(clip: Clip, side: int) -> OwlViTForObjectDetection:
    """An OWL-ViT for pictures of ``side`` pixels whose towers are copies of a CLIP's.

    Its positions are interpolated (bicubic), its class head begins as the CLIP's projection of
    pictures; the box head is untrained, by torch's seed. Raises :class:`InputError` for another
    model than a CLIP, for one whose texts are not as wide as its vectors, and for a side that the
    patches do not divide.
    """
    model = clip.model
    if getattr(model.config, "model_type", "") != "clip":
        raise InputError(
            f"a {type(model).__name__} has other towers than OWL-ViT; give a CLIP, such as "
            "openai/clip-vit-base-patch16"
        )
    text, vision = model.config.text_config, model.config.vision_config
    width = model.config.projection_dim
    if text.hidden_size != width:
        raise InputError(
            f"the CLIP's texts are {text.hidden_size} wide and its vectors {width}; OWL-ViT "
            "compares vectors that are as wide as its texts"
        )
    if side < 1 or side % vision.patch_size:
        raise InputError(
            f"pictures of {side} pixels do not divide into patches of {vision.patch_size}"
        )
    config = OwlViTConfig(
        text_config={name: getattr(text, name) for name in TEXT},
        vision_config={**{name: getattr(vision, name) for name in VISION}, "image_size": side},
        projection_dim=width,
    )
    made = OwlViTForObjectDetection(config).to(model.device, model.dtype)
    made.owlvit.load_state_dict(_copied(model.state_dict(), side // vision.patch_size))
    with torch.no_grad():
        heads: Any = made.class_head
        heads.dense0.weight.copy_(model.visual_projection.weight)
        heads.dense0.bias.zero_()
        for layer, value in ((heads.logit_scale, SCALE - 1), (heads.logit_shift, SHIFT)):
            layer.weight.zero_()
            layer.bias.fill_(value)
    return made.eval()


def _copied(state: dict[str, Tensor], grid: int) -> dict[str, Tensor]:
    """A CLIP's weights by OWL-ViT's names, its positions for ``grid`` patches on a side."""
    copied = {
        name.replace("pre_layrnorm", "pre_layernorm"): tensor
        for name, tensor in state.items()
        if not name.endswith("position_ids")
    }
    first, rest = copied[POSITIONS][:1], copied[POSITIONS][1:]
    own = round(len(rest) ** 0.5)
    if own != grid:
        squares = rest.T.unflatten(1, (own, own))[None].float()
        larger = nn.functional.interpolate(squares, (grid, grid), mode="bicubic")
        rest = larger[0].flatten(1).T.to(first.dtype)
    copied[POSITIONS] = torch.cat([first, rest])
    return copied
