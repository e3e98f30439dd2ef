"""Tiny encoders of every kind that radial embeddings take, saved as their users save them."""

import json
from pathlib import Path

import torch
from PIL import Image
from tokenizers import processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.xcross.small import base, tokenizer

CORPUS = ["animal", "bird", "a small bird sings", "vehicle", "car", "a red car parks", "thing"]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
CHAINS = [
    {
        "texts": [kind, name, f"a {colour} {name} {verb}"],
        "negative": [other, rival],
        "image_url": f"http://images/{colour}_{name}.png",
    }
    for kind, name, verb, other, rival in (
        ("animal", "bird", "sings", "vehicle", "dog"),
        ("animal", "dog", "runs", "vehicle", "bird"),
        ("vehicle", "car", "parks", "animal", "boat"),
        ("vehicle", "boat", "sails", "animal", "car"),
    )
    for colour in ("red", "green", "blue", "grey", "black", "white", "small", "large")
]


def words(ending: bool = False) -> PreTrainedTokenizerFast:
    """BERT's special tokens; with ``ending``, CLIP's, whose last token has the largest id."""
    made = tokenizer(CORPUS)
    made.model_max_length = 24
    if not ending:
        return made
    made.add_special_tokens({"bos_token": "<start>", "eos_token": "<end>"})
    start, end = made.convert_tokens_to_ids(["<start>", "<end>"])
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
    made.pad_token = "<end>"
    return made


def save_bert(folder: Path) -> Path:
    base("bert").save_pretrained(folder)
    words().save_pretrained(folder)
    return folder


def save_sentence_transformer(folder: Path, pooling: str = "cls_token", module: str = "Normalize"):
    """A folder as sentence-transformers writes it, with a pooling other than the default."""
    save_bert(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), (module, "2_Last")]
    described = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, f"pooling_mode_{pooling}": True})
    )
    return folder


def save_dual(folder: Path, family: str) -> Path:
    """A CLIP or a SigLIP whose towers have different depths, with its image processor."""
    torch.manual_seed(5)
    made = words(ending=family == "clip")
    text = {**TEXT, "vocab_size": len(made), "eos_token_id": made.eos_token_id or 2}
    if family == "clip":
        config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=20)
        model: CLIPModel | SiglipModel = CLIPModel(config)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)
    return folder


def save_images(folder: Path) -> Path:
    """One picture for each image that the chains name."""
    folder.mkdir()
    for number, row in enumerate(CHAINS):
        colour = tuple((37 * number * k) % 256 for k in (1, 2, 3))
        Image.new("RGB", (16, 16), colour).save(folder / Path(row["image_url"]).name)
    return folder


def save_chains(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in CHAINS))
    return path
