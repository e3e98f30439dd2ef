"""Tiny models of transformers, with random weights: one builder, and the sizes that tests share."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, TrainingArguments

STRUCTURE: dict[str, dict[str, Any]] = {
    "deepseek_v3": {
        "moe_intermediate_size": 24,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "v_head_dim": 8,
    },
    "gpt_oss": {"num_key_value_heads": 2, "num_experts_per_tok": 2, "head_dim": 8},
    "granitemoe": {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "jamba": {
        "num_key_value_heads": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "mixtral": {"num_key_value_heads": 2, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "head_dim": 8,
    },
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "switch_transformers": {
        "num_experts": 4,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    },
    "longformer": {"attention_window": 4},
    "led": {
        "attention_window": 4,
        "max_encoder_position_embeddings": 64,
        "max_decoder_position_embeddings": 64,
    },
    "swinv2": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
}
"""What a family needs besides sizes, by its ``model_type``."""


def _widths(width: int, inner: int, layers: int, heads: int, **more: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


NARROW = _widths(16, 24, 1, 2, vocab_size=60)
SMALL = _widths(32, 48, 2, 4, vocab_size=99, max_position_embeddings=32)
TEXT = _widths(32, 48, 2, 4, vocab_size=100, max_position_embeddings=64)
BASE = _widths(32, 64, 2, 4, vocab_size=100)
PICTURES = {"image_size": 16, "patch_size": 8}
VISION = _widths(32, 48, 2, 4, **PICTURES)
SPEECH = {
    **_widths(32, 48, 2, 4),
    "conv_dim": (32, 32),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def encoder_decoder(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """Sizes of BART and what is built like it."""
    return {
        "d_model": width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner,
        "decoder_ffn_dim": inner,
    }


SEQ2SEQ = encoder_decoder(32, 48, 2, 4)
ENCODER_DECODER = SEQ2SEQ | {"vocab_size": 99, "max_position_embeddings": 32}
T5 = {
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
}


def tiny_config(kind: str, *sizes: Mapping[str, Any], **more: Any) -> Any:
    """The configuration of a model class: its family's structure, then the sizes given."""
    made = getattr(transformers, kind).config_class
    settings = dict(STRUCTURE.get(made.model_type, {}))
    for each in (*sizes, more):
        settings |= each
    return made(**settings)


def tiny(
    kind: str, *sizes: Mapping[str, Any], options: Mapping[str, Any] = {}, **more: Any
) -> PreTrainedModel:
    """A model of a class of transformers, by the class's name; ``options`` go to the class."""
    return getattr(transformers, kind)(tiny_config(kind, *sizes, **more), **options)


def build(kind: str, config: Any, **options: Any) -> PreTrainedModel:
    """The same model of a configuration at every call, in eval mode."""
    torch.manual_seed(5)
    return getattr(transformers, kind)(config, **options).eval()


def tiny_bert() -> PreTrainedModel:
    sizes = {"max_position_embeddings": 64}
    return tiny("BertModel", BASE, sizes, options={"add_pooling_layer": False}).eval()


def tiny_llama() -> PreTrainedModel:
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {"num_key_value_heads": 2, "max_position_embeddings": 128}
    return tiny("LlamaForCausalLM", BASE, sizes, tokens).eval()


def tiny_t5() -> PreTrainedModel:
    return tiny("T5Model", T5, vocab_size=100, d_ff=64, decoder_start_token_id=0).eval()


def tiny_deberta() -> PreTrainedModel:
    return tiny("DebertaV2Model", BASE, max_position_embeddings=64).eval()


def tiny_gpt2() -> PreTrainedModel:
    sizes = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return tiny("GPT2LMHeadModel", sizes, bos_token_id=1, eos_token_id=2).eval()


def tiny_helm() -> PreTrainedModel:
    from geodapt.helm import HelmConfig, HelmForCausalLM

    model = HelmForCausalLM(HelmConfig(**BASE)).eval()
    for parameter in model.parameters():  # what starts at zero computes nothing yet
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return model


def training_arguments(folder: Any, steps: int = 4, **options: Any) -> TrainingArguments:
    """A few steps of Trainer on the CPU, without files and bars."""
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    return TrainingArguments(
        str(folder), max_steps=steps, learning_rate=1e-2, **{**quiet, **options}
    )
