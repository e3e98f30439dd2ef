"""Sizes by name, and what the paper's released code sets, as attributes of a HELM's configuration.

The official scripts count the time in every width (390, 1,560; a head's 65); here ``hidden_size``
and the feed-forward sizes count space components alone (docs/helm.md).
"""

from typing import Any

RELEASED: dict[str, Any] = {
    "rms_norm_eps": 1e-4,
    "attention_bias": True,
    "mlp_bias": True,
    "latent_query_bias": True,
    "output_reads_head_times": True,
    "final_projection": True,
    "head_reads_time": True,
    "learn_residual_scale": False,
}
"""What ``released=True`` sets. ``residual_scale`` follows from the width: the root of it, times 4
in a dense model."""
RELEASED_EXPERTS: dict[str, Any] = {
    "expert_bias": True,
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "expert_curvatures": 1.0,
    "expert_sum": "nested",
    "shared_experts_curved": False,
}
"""What it sets beside, where there are experts."""

_LARGE = {"vocab_size": 128256, "head_dim": 64}
_RELEASED_LARGE = {
    "released": True,
    "vocab_size": 128256,
    "head_dim": 65,
    "max_position_embeddings": 2048,
}
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # size: (dense, what changes with experts)
    "tiny": (
        {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 32},
        {
            "attention": "mla",
            "kv_lora_rank": 64,
            "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "n_routed_experts": 4,
            "moe_intermediate_size": 192,
        },
    ),
    "100m": (
        {**_LARGE, "num_attention_heads": 8, "max_position_embeddings": 4096},
        {
            "attention": "mla",
            "n_routed_experts": 4,
            "moe_intermediate_size": 384,
        },
    ),
    "1b": (
        {
            **_LARGE,
            "hidden_size": 1536,
            "intermediate_size": 4096,
            "num_hidden_layers": 16,
            "num_attention_heads": 24,
            "max_position_embeddings": 4096,
        },
        {
            "attention": "mla",
            "q_lora_rank": 768,
            "kv_lora_rank": 256,
            "n_routed_experts": 8,
            "moe_intermediate_size": 1024,
        },
    ),
    "100m-released": (
        {
            **_RELEASED_LARGE,
            "hidden_size": 389,
            "intermediate_size": 1559,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
        },
        {
            "attention": "mla",
            "kv_lora_rank": 66,
            "qk_nope_head_dim": 34,
            "qk_rope_head_dim": 16,
            "v_head_dim": 33,
            "n_routed_experts": 4,
            "moe_intermediate_size": 779,
        },
    ),
    "1b-released": (
        {
            **_RELEASED_LARGE,
            "hidden_size": 909,
            "intermediate_size": 3639,
            "num_hidden_layers": 16,
            "num_attention_heads": 14,
        },
        {
            "attention": "mla",
            "kv_lora_rank": 258,
            "qk_nope_head_dim": 66,
            "qk_rope_head_dim": 64,
            "v_head_dim": 65,
            "n_routed_experts": 8,
            "moe_intermediate_size": 1819,
            "learn_expert_curvatures": False,
        },
    ),
}
