"""Bad input is refused with its name; presets have their sizes."""

import pytest
import torch

from geodapt.errors import InputError
from geodapt.helm import HelmConfig, HelmForCausalLM
from tests.helm import small

WRONG = {
    "hidden_size 16 does not divide into 3 heads": {"num_attention_heads": 3, "head_dim": None},
    "not a multiple of num_key_value_heads 3": {"num_key_value_heads": 3},
    "head_dim is 2": {"head_dim": 2},
    "released sets residual_scale to": {"released": True, "residual_scale": 3.0},
    "q_lora_rank: the released code": {**small.MLA, "released": True, "q_lora_rank": 8},
    "tie_word_embeddings: with head_reads_time": {"released": True, "tie_word_embeddings": True},
    "n_shared_experts is 2; expected 1": {
        **small.MICE,
        "expert_sum": "nested",
        "n_shared_experts": 2,
    },
    "position is 'rope'; expected 'hope' or 'relative' or 'none'": {"position": "rope"},
    "curvature is 0": {"curvature": 0.0},
    "curvature is -1": {"curvature": -1.0},
    "qk_rope_head_dim is 3": {**small.MLA, "qk_rope_head_dim": 3},
    "num_key_value_heads is 2": {**small.MLA, "num_key_value_heads": 2},
    "kv_lora_rank is 1": {**small.MLA, "kv_lora_rank": 1},
    "vocab_size is 0": {"vocab_size": 0},
    "num_experts_per_tok is 5": {**small.MICE, "num_experts_per_tok": 5},
    "n_routed_experts 4 does not divide into n_group 3": {**small.MICE, "n_group": 3},
    "topk_group is 3": {**small.MICE, "n_group": 2, "topk_group": 3},
    "leaves 2 experts": {**small.MICE, "n_group": 2, "num_experts_per_tok": 3},
    "expert_curvatures has 2 numbers": {**small.MICE, "expert_curvatures": [1.0, 2.0]},
    "expert_curvatures holds -1": {**small.MICE, "expert_curvatures": -1.0},
    "expert_geometries holds 'flat'": {**small.MICE, "expert_geometries": ["flat"]},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_configurations(message):
    with pytest.raises(InputError, match=message):
        small.config(**WRONG[message])


def test_wrong_inputs():
    helm = small.model()
    with pytest.raises(InputError, match="token 50, but the model's vocabulary has 50"):
        helm(torch.tensor([[3, 50]]))
    with pytest.raises(InputError, match="65 tokens, but max_position_embeddings is 64"):
        helm(torch.ones(1, 65, dtype=torch.long))
    with pytest.raises(InputError, match="either input_ids or inputs_embeds"):
        helm()
    with pytest.raises(InputError, match="no HELM preset '7b'"):
        HelmConfig.preset("7b")


def test_relative_positions_refuse_flash():
    helm = small.model("relative")
    helm.config._attn_implementation = "flex_attention"
    with pytest.raises(InputError, match="use 'sdpa'"):
        helm(small.tokens())


@pytest.mark.parametrize(
    ("size", "mice", "millions"),
    [
        ("tiny", False, (1, 20)),
        ("tiny", True, (1, 20)),
        ("100m", False, (90, 130)),
        ("100m", True, (90, 130)),
        ("1b", False, (800, 1200)),
        ("1b", True, (800, 1200)),
        ("100m-released", False, (105, 135)),
        ("100m-released", True, (105, 135)),
        ("1b-released", True, (900, 1300)),
    ],
)
def test_presets(size, mice, millions):
    with torch.device("meta"):
        helm = HelmForCausalLM(HelmConfig.preset(size, mice))
    assert millions[0] < sum(p.numel() for p in helm.parameters()) / 1e6 < millions[1]


def test_configuration_survives_saving(tmp_path):
    config = small.config(**small.MIXED, expert_curvatures=[0.5] * 5, learn_curvature=True)
    config.save_pretrained(tmp_path)
    assert HelmConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
