"""HELMs small enough for loops, with every weight away from its start."""

import torch

from geodapt.helm import HelmConfig, HelmForCausalLM

VOCABULARY = 50


def config(**changes) -> HelmConfig:
    small = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 6,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "curvature": 0.7,
    }
    return HelmConfig(**{**small, **changes})


MLA = {
    "attention": "mla",
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
}
MICE = {**MLA, "n_routed_experts": 4, "moe_intermediate_size": 12}
MIXED = {**MICE, "expert_geometries": ["hyperbolic", "spherical", "euclidean"]}

KINDS = {
    "mha": {},
    "grouped-queries": {"num_key_value_heads": 2},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "relative": {"position": "relative", "relative_attention_num_buckets": 8},
    "no-positions": {"position": "none"},
    "learned-curvature": {"learn_curvature": True},
    "tied": {"tie_word_embeddings": True},
    "mla": MLA,
    "mla-query-latent": {**MLA, "q_lora_rank": 10, "attention_bias": True},
    "mla-relative": {**MLA, "position": "relative", "relative_attention_num_buckets": 8},
    "mice": MICE,
    "mice-mha": {"n_routed_experts": 3, "moe_intermediate_size": 12, "n_shared_experts": 2},
    "mice-one-curvature": {
        **MICE,
        "expert_curvatures": 1.0,
        "learn_expert_curvatures": False,
        "scoring_func": "softmax",
    },
    "mice-groups": {
        **MICE,
        "n_routed_experts": 6,
        "n_group": 3,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": False,
        "n_shared_experts": 0,
    },
    "mixed": MIXED,
    "mixed-biases": {**MIXED, "expert_bias": True},
    "released": {"released": True, "head_dim": 7, "curvature": 1.0},
    "released-mice": {**MICE, "released": True},
    "released-odd": {**MICE, "released": True, "learn_curvature": True, "num_experts_per_tok": 3},
}
MAIN = ["mha", "grouped-queries", "relative", "mla", "mice", "mixed", "released", "released-mice"]


def model(kind: str = "mha", dtype=torch.float32, **changes) -> HelmForCausalLM:
    torch.manual_seed(0)
    helm = HelmForCausalLM(config(**{**KINDS[kind], **changes}))
    with torch.no_grad():  # times' weights and offsets start at 0, where mistakes would not show
        for parameter in helm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in helm.named_buffers():
            if "correction_bias" in name:
                buffer.normal_(std=0.1)
    return helm.to(dtype).eval()


def talker(kind: str = "mha", **changes) -> HelmForCausalLM:
    """A model whose next token depends on the tokens before: its answers do not repeat one.

    Its matrices are large and its time weights small, which add much the same to every token.
    """
    torch.manual_seed(1)
    helm = HelmForCausalLM(config(**{**KINDS[kind], "initializer_range": 0.7, **changes}))
    with torch.no_grad():
        for parameter in helm.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return helm.eval()


def tokens(rows: int = 2, length: int = 9) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.manual_seed(1))
