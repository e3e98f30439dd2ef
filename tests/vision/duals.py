"""Tiny CLIPs and SigLIPs of every family, with random weights and their own processors."""

import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPProcessor,
    Siglip2ImageProcessorPil,
    Siglip2Processor,
    SiglipImageProcessorPil,
    SiglipProcessor,
)

from geodapt.tinyclip.model import train_caption_tokenizer
from geodapt.vision import Clip
from tests.tiny_models import tiny

TEXTS = ["a photo of a cat", "a dog", "a photo of a small bird on a red car", "", "car"]
POSITIONS, SIDE, PATCH = 40, 32, 8
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
FAMILIES = {
    "clip": "CLIPModel",
    "clipseg": "CLIPSegModel",
    "metaclip_2": "MetaClip2Model",
    "owlvit": "OwlViTModel",
    "owlv2": "Owlv2Model",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
}


def dual(family: str) -> Clip:
    """A model of random weights, large enough that features differ, in eval mode."""
    torch.manual_seed(3)
    tokenizer = train_caption_tokenizer(TEXTS, 300, POSITIONS)
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**TOWER, "hidden_size": 32, "image_size": SIDE, "patch_size": PATCH}
    siglip = family.startswith("siglip")
    if siglip:
        text["projection_size"] = 32
    if family == "siglip2":
        vision["num_patches"] = (SIDE // PATCH) ** 2
    more = {} if siglip else {"projection_dim": 20}
    made = tiny(FAMILIES[family], text_config=text, vision_config=vision, **more).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        made.logit_scale.fill_(1.5)
        if siglip:
            made.logit_bias.fill_(-0.7)
    size = {"height": SIDE, "width": SIDE}
    if family == "siglip":
        processor = SiglipProcessor(SiglipImageProcessorPil(size=size), tokenizer)
    elif family == "siglip2":
        images = Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=(SIDE // PATCH) ** 2)
        processor = Siglip2Processor(images, tokenizer)
    else:
        processor = CLIPProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tokenizer)
    return Clip(made.requires_grad_(False), processor, family)


def pictures(count: int = 3, size: tuple[int, int] = (40, 28)) -> list[Image.Image]:
    """Pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (count, size[1], size[0], 3), generator=generator).byte()
    return [Image.fromarray(each.numpy()) for each in noise]


def squares(count: int = 2, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    """Normalised pixels of noise."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))
