"""Tiny models with two towers, of every family that scalings serve, from configurations."""

import torch

from tests.tiny_models import tiny

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "bos_token_id": 48,
    "eos_token_id": 49,
    "pad_token_id": 1,
}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
WIDE = {**TEXT, "hidden_size": 48, "projection_size": 48}
IDS = torch.tensor([[48, 3, 4, 5, 49, 1], [48, 6, 7, 49, 1, 1]])


SIGLIP2 = {**{k: v for k, v in VISION.items() if k != "image_size"}, "num_patches": 16}
CLIPSEG = {
    "extract_layers": [0, 1],
    "reduce_dim": 16,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 32,
}
FAMILIES = {
    "clip": ("CLIPModel", TEXT, VISION, {"projection_dim": 24}),
    "metaclip2": ("MetaClip2Model", TEXT, VISION, {"projection_dim": 24}),
    "siglip": ("SiglipModel", WIDE, VISION, {}),
    "siglip2": ("Siglip2Model", WIDE, SIGLIP2, {}),
    "owlvit": ("OwlViTForObjectDetection", TEXT, VISION, {"projection_dim": 32}),
    "owlv2": ("Owlv2ForObjectDetection", TEXT, VISION, {"projection_dim": 32}),
    "clipseg": (
        "CLIPSegForImageSegmentation",
        TEXT,
        VISION,
        {"projection_dim": 24, **CLIPSEG},
    ),
}
"""Class, the two towers' sizes, and what else the family needs."""


def model(family: str = "clip", dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    kind, text, vision, more = FAMILIES[family]
    return tiny(kind, text_config=text, vision_config=vision, **more).to(dtype).eval()


def outputs(model, images: int = 2) -> torch.Tensor:
    """What the model says of two texts and some pictures, as one vector."""
    torch.manual_seed(1)
    pixels = torch.randn(images, 3, 32, 32, dtype=next(model.parameters()).dtype)
    mask = (IDS != 1).long()
    kind = model.config.model_type
    if kind == "siglip2":
        patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1)
        found = model(
            input_ids=IDS,
            pixel_values=patches.reshape(images, 16, 192),
            pixel_attention_mask=torch.ones(images, 16, dtype=torch.long),
            spatial_shapes=torch.tensor([[4, 4]] * images),
        )
    elif kind in {"owlvit", "owlv2"}:
        found = model(input_ids=IDS, attention_mask=mask, pixel_values=pixels[:1])
        return torch.cat([found.logits.flatten(), found.pred_boxes.flatten()])
    elif kind == "clipseg" and hasattr(model, "clip"):
        return model(input_ids=IDS, attention_mask=mask, pixel_values=pixels).logits.flatten()
    else:
        found = model(input_ids=IDS, attention_mask=mask, pixel_values=pixels)
    return found.logits_per_image.flatten()
