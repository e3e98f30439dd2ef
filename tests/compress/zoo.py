"""Tiny models whose weights are not all plain linear layers that are called."""

import torch
from torch import nn

from tests.tiny_models import PICTURES, tiny

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SIZE, "vocab_size": 99, "intermediate_size": 48}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
MAMBA = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}

EXPERTS = {
    "qwen3_moe": lambda: tiny("Qwen3MoeForCausalLM", TEXT),
    "deepseek_v3": lambda: tiny("DeepseekV3ForCausalLM", TEXT, LATENT, n_group=1, topk_group=1),
    "gpt_oss": lambda: tiny("GptOssForCausalLM", TEXT, num_local_experts=4),
    "granite_moe": lambda: tiny("GraniteMoeForCausalLM", TEXT),
}
READ = {
    "falcon_mamba": lambda: tiny("FalconMambaForCausalLM", MAMBA),
    "jamba": lambda: tiny("JambaForCausalLM", TEXT, num_experts=4, mamba_d_state=8),
    "siglip_vision": lambda: tiny("SiglipVisionModel", SIZE, PICTURES, intermediate_size=48),
    "falcon": lambda: tiny("FalconForCausalLM", SIZE, vocab_size=99),
}
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
