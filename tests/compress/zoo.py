"""Tiny models whose weights are not all plain linear layers that are called."""

import torch
import transformers as T
from torch import nn

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SIZE, "vocab_size": 99, "intermediate_size": 48}
EIGHT = {"head_dim": 8, "num_key_value_heads": 2}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
MAMBA = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
PICTURE = {**SIZE, "intermediate_size": 48, "image_size": 16, "patch_size": 8}

EXPERTS = {
    "qwen3_moe": lambda: T.Qwen3MoeForCausalLM(
        T.Qwen3MoeConfig(**TEXT, **EIGHT, num_experts=4, num_experts_per_tok=2,
                         moe_intermediate_size=24)
    ),
    "deepseek_v3": lambda: T.DeepseekV3ForCausalLM(
        T.DeepseekV3Config(**TEXT, **LATENT, v_head_dim=8, moe_intermediate_size=24,
                           n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
                           first_k_dense_replace=1)
    ),
    "gpt_oss": lambda: T.GptOssForCausalLM(
        T.GptOssConfig(**TEXT, **EIGHT, num_local_experts=4, num_experts_per_tok=2)
    ),
    "granite_moe": lambda: T.GraniteMoeForCausalLM(
        T.GraniteMoeConfig(**TEXT, num_key_value_heads=2, num_local_experts=4,
                           num_experts_per_tok=2)
    ),
}  # fmt: skip
READ = {
    "falcon_mamba": lambda: T.FalconMambaForCausalLM(T.FalconMambaConfig(**MAMBA)),
    "jamba": lambda: T.JambaForCausalLM(
        T.JambaConfig(**TEXT, num_key_value_heads=2, num_experts=4, mamba_d_state=8,
                      use_mamba_kernels=False, attn_layer_offset=1, attn_layer_period=2)
    ),
    "siglip_vision": lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**PICTURE)),
    "falcon": lambda: T.FalconForCausalLM(T.FalconConfig(**SIZE, vocab_size=99)),
}  # fmt: skip
"""Weights that are read without a call, or multiplied in a way of the model's own."""
ZOO = EXPERTS | READ


def made(name: str) -> nn.Module:
    """The same tiny model at every call."""
    torch.manual_seed(3)
    return ZOO[name]().eval()


@torch.no_grad()
def outputs(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The first output: logits, or last hidden states."""
    return model(**inputs)[0]
