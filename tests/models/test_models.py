"""Base models of every family: where their blocks are, which way they look, what is refused."""

import re

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertTokenizerFast
from transformers.utils import logging as transformers_logging

from geodapt.errors import InputError
from geodapt.models import (
    OFFLINE,
    default_dtype,
    is_decoder,
    load_base,
    locate_base,
    transformer_blocks,
)

WIDTH, HEADS, INNER = 32, 4, 64
COMMON = {
    "vocab_size": 99,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "pad_token_id": 0,
}
GPT = {"vocab_size": 99, "n_embd": WIDTH, "n_head": HEADS, "n_positions": 64}
SEQ2SEQ = {
    "vocab_size": 99, "d_model": WIDTH, "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER,
}  # fmt: skip
T5 = {"vocab_size": 99, "d_model": WIDTH, "d_kv": 8, "d_ff": INNER, "num_heads": HEADS}
# family -> configuration with three layers, class of a block, whether it is causal
FAMILIES = {
    "bert": (COMMON, "BertLayer", False),
    "roberta": (COMMON, "RobertaLayer", False),
    "deberta-v2": (COMMON, "DebertaV2Layer", False),
    "modernbert": (COMMON, "ModernBertEncoderLayer", False),
    "electra": ({**COMMON, "embedding_size": WIDTH}, "ElectraLayer", False),
    "mpnet": (COMMON, "MPNetLayer", False),
    "esm": ({**COMMON, "mask_token_id": 1}, "EsmLayer", False),
    "xlnet": (
        {"vocab_size": 99, "d_model": WIDTH, "n_head": HEADS, "d_inner": INNER},
        "XLNetLayer",
        False,
    ),
    "distilbert": (
        {"vocab_size": 99, "dim": WIDTH, "n_heads": HEADS, "hidden_dim": INNER},
        "TransformerBlock",
        False,
    ),
    "llama": (COMMON, "LlamaDecoderLayer", True),
    "qwen2": ({**COMMON, "num_key_value_heads": 2}, "Qwen2DecoderLayer", True),
    "qwen3": ({**COMMON, "num_key_value_heads": 2, "head_dim": 8}, "Qwen3DecoderLayer", True),
    "mistral": ({**COMMON, "num_key_value_heads": 2}, "MistralDecoderLayer", True),
    "gpt_neox": (COMMON, "GPTNeoXLayer", True),
    "gpt2": (GPT, "GPT2Block", True),
    "mixtral": (
        {**COMMON, "num_key_value_heads": 2, "num_local_experts": 8},
        "MixtralDecoderLayer",
        True,
    ),
    "gemma3_text": (
        {**COMMON, "num_key_value_heads": 2, "head_dim": 8},
        "Gemma3DecoderLayer",
        True,
    ),
    "t5": (T5, "T5Block", False),
    "bart": (SEQ2SEQ, "BartEncoderLayer", False),
}
LAYERS = {"gpt2": "n_layer", "xlnet": "n_layer", "distilbert": "n_layers", "t5": "num_layers"}


def tiny(family: str, **changes):
    """A random model of a family with three layers (and, where it has a decoder, five there)."""
    values = {**FAMILIES[family][0], LAYERS.get(family, "num_hidden_layers"): 3}
    if family == "bart":
        values = {**SEQ2SEQ, "encoder_layers": 3, "decoder_layers": 5}
    if family == "t5":
        values["num_decoder_layers"] = 5
    return AutoModel.from_config(AutoConfig.for_model(family, **values, **changes)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_found_in_every_family(family):
    model = tiny(family)
    found = transformer_blocks(model)
    assert len(found) == 3
    assert {type(block).__name__ for block in found} == {FAMILIES[family][1]}


@pytest.mark.parametrize("family", FAMILIES)
def test_causal_families_are_told_by_what_they_do(family):
    assert is_decoder(tiny(family)) is FAMILIES[family][2]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("t5", "bart")])
def test_direction_equals_the_slow_experiment(family):
    """Change the later tokens: a causal model's first state stays as it was."""
    model = tiny(family)
    tokens = torch.tensor([[5, 6, 7, 8]])
    changed = torch.tensor([[5, 9, 10, 11]])
    with torch.no_grad():
        states = [model(input_ids=ids)[0][:, 0] for ids in (tokens, changed)]
    assert is_decoder(model) is torch.allclose(*states, rtol=0, atol=1e-5)


def test_a_bidirectional_model_of_a_causal_family():
    assert is_decoder(tiny("gemma3_text", use_bidirectional_attention=True)) is False


def test_a_causal_model_of_a_bidirectional_family():
    assert is_decoder(tiny("bert", is_decoder=True)) is True


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
def test_telling_the_direction_changes_nothing(context):
    model = tiny("llama").requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with context():
        assert is_decoder(model)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["bert", "llama", "mixtral"])
def test_direction_in_other_precisions(family, dtype):
    assert is_decoder(tiny(family).to(dtype)) is FAMILIES[family][2]


def test_models_without_blocks_are_refused():
    resnet = AutoModel.from_config(
        AutoConfig.for_model("resnet", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    )
    albert = AutoModel.from_config(  # its layers are one and the same
        AutoConfig.for_model("albert", **COMMON, num_hidden_layers=3, embedding_size=8)
    )
    for model in (resnet, albert, torch.nn.Linear(2, 2)):
        with pytest.raises(InputError, match=f"base {type(model).__name__} has no list of"):
            transformer_blocks(model)


# Loading


@pytest.fixture
def saved(tmp_path):
    """A base folder with model and tokenizer."""
    folder = tmp_path / "base"
    tiny("bert").save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    return folder


def refused(base) -> str:
    with pytest.raises(InputError) as caught:
        load_base(str(base))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_base_is_loaded_frozen_in_eval_mode(saved):
    model, tokenizer = load_base(str(saved), torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer("a b")["input_ids"] == [2, 5, 6, 3]


def test_loading_leaves_the_verbosity_as_it_was(saved, tmp_path):
    before = transformers_logging.get_verbosity()
    load_base(str(saved))
    refused(tmp_path / "nowhere")
    assert transformers_logging.get_verbosity() == before


def test_the_offline_base_embeds_text():
    model, tokenizer = load_base(OFFLINE)
    assert (len(transformer_blocks(model)), model.config.hidden_size) == (6, 384)
    texts = ["a cat sits", "a kitten is sitting", "stock prices fell"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = (means[0] @ means[1]).item(), (means[0] @ means[2]).item()
    assert near > 0.7 > 0.3 > far


def test_a_tokenizer_without_padding_pads_with_its_end(saved):
    model = tiny("llama")
    model.save_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.eos_token, tokenizer.pad_token = "h", None
    tokenizer.save_pretrained(saved)
    assert load_base(str(saved))[1].pad_token == "h"


def test_names_that_lead_nowhere(tmp_path):
    for name in (str(tmp_path / "x"), "./x", "~/x", "a/b/c"):
        assert refused(name) == f"base '{name}' does not exist"
    (tmp_path / "empty").mkdir()
    assert "is a folder without config.json" in refused(tmp_path / "empty")
    assert locate_base("some-org/some-model") == "some-org/some-model"
    assert "a hub name that is reachable, or 'minilm'" in refused("some-org/some-model")


def test_pickled_weights_are_refused_unread(saved):
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(b"never read")
    assert "has its weights in pytorch_model.bin, a pickle" in refused(saved)


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_weights_that_are_cut_short(saved, length):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert refused(saved).startswith(f"base '{saved}' could not be loaded: ")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"hidden_size": 32', '"hidden_size": 64', r"is \(.*32.*\) in the weights, but \(.*64"),
        ('"num_hidden_layers": 3', '"num_hidden_layers": 4', "lack 16 tensors .* 'encoder.layer.3"),
        ('"model_type": "bert"', '"model_type": "brt"', "model type `brt`"),
        ("{", "", "not a valid JSON file"),
    ],
)
def test_a_configuration_of_another_model(saved, before, after, expected):
    config = saved / "config.json"
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after, 1))
    assert re.search(expected, refused(saved))


def test_a_base_without_a_tokenizer(saved):
    for path in saved.glob("*token*"):
        path.unlink()
    assert "has no tokenizer beside its weights" in refused(saved)


def test_a_base_without_blocks(tmp_path):
    config = AutoConfig.for_model("resnet", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    AutoModel.from_config(config).save_pretrained(tmp_path / "resnet")
    assert refused(tmp_path / "resnet").startswith("base ResNetModel has no list of transformer")


def test_the_type_that_a_device_multiplies(monkeypatch):
    assert default_dtype("cpu") in (torch.float32, torch.bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert default_dtype("cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert default_dtype("cpu") == torch.float32
