"""Tiny models with two towers, of every family that scalings serve, from configurations."""

import torch
import transformers as hf

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


def clip():
    return hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))


def metaclip2():
    config = hf.MetaClip2Config(text_config=TEXT, vision_config=VISION, projection_dim=24)
    return hf.MetaClip2Model(config)


def siglip():
    return hf.SiglipModel(hf.SiglipConfig(text_config=WIDE, vision_config=VISION))


def siglip2():
    vision = {**VISION, "num_patches": 16}
    del vision["image_size"]
    return hf.Siglip2Model(hf.Siglip2Config(text_config=WIDE, vision_config=vision))


def owlvit():
    config = hf.OwlViTConfig(text_config=TEXT, vision_config=VISION, projection_dim=32)
    return hf.OwlViTForObjectDetection(config)


def owlv2():
    config = hf.Owlv2Config(text_config=TEXT, vision_config=VISION, projection_dim=32)
    return hf.Owlv2ForObjectDetection(config)


def clipseg():
    config = hf.CLIPSegConfig(
        text_config=TEXT,
        vision_config=VISION,
        projection_dim=24,
        extract_layers=[0, 1],
        reduce_dim=16,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=32,
    )
    return hf.CLIPSegForImageSegmentation(config)


FAMILIES = {
    make.__name__: make for make in (clip, metaclip2, siglip, siglip2, owlvit, owlv2, clipseg)
}


def model(family: str = "clip", dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    return FAMILIES[family]().to(dtype).eval()


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
