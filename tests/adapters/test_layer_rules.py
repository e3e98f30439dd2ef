"""Which layers a configuration names: PEFT's own answers, and patterns that never end."""

import time
from contextlib import suppress

import peft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from geodapt.adapters.peft_files import safe_regex
from geodapt.adapters.peft_files.layer_rules import LayerRules
from geodapt.adapters.peft_files.safe_regex import SafeRegex, TimeBudget
from geodapt.errors import InputError
from tests.adapters.mutations import PATTERNS

PATHS = [
    *(f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1, 10, 11) for name in "qkvo"),
    *(f"model.layers.{i}.mlp.{name}_proj" for i in (0, 10) for name in ("up", "down")),
    *(f"model.layers.{i}.mlp.experts.{j}.w1" for i in (0, 1) for j in (0, 1, 2)),
    *("lm_head", "model.embed_tokens", "score", "classifier.dense", "classifier.out_proj"),
    *("vision.blocks.3.attn.qkv", "text_model.encoder.layers.1.fc1", "a_b", "axb.c"),
    *("decoder.block.0.layer.1.EncDecAttention.q", "encoder.block.0.layer.0.SelfAttention.q"),
]
TARGETS = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["self_attn.q_proj", "lm_head", "model.layers.1.mlp.experts.0.w1"]},
    {"target_modules": ["q_proj"], "exclude_modules": ["model.layers.0.self_attn.q_proj"]},
    {"target_modules": ["q_proj"], "exclude_modules": r".*layers\.1\..*"},
    {"target_modules": r".*\.(q|k)_proj"},
    {"target_modules": r"^(?!.*vision).*(?:self_attn|mlp)\.(?:q_proj|up_proj)$"},
    {"target_modules": r"(?:.*?(?:text).*?(?:layers).*?fc1)|(?:\bmodel\.layers\.[\d]{1,}\..*q)"},
    {"target_modules": r"model(?=\.).*\.(v_proj|o_proj)"},
    {"target_modules": ["q_proj", "w1"], "layers_to_transform": 1},
    {"target_modules": ["q_proj", "w1"], "layers_to_transform": [0, 10]},
    {"target_modules": ["w1", "fc1"], "layers_to_transform": [1], "layers_pattern": "layers"},
    {"target_modules": ["q", "qkv"], "layers_to_transform": [0, 3], "layers_pattern": ["blocks"]},
    {"target_modules": ["model.layers.0.self_attn.q_proj", "q"], "layers_to_transform": []},
    {"target_modules": ["dense", "q_proj"], "modules_to_save": ["classifier", "embed_tokens"]},
    {"target_modules": ["out_proj", "lm_head"], "modules_to_save": ["classifier.dense"]},
    {"target_modules": []},
]


@pytest.mark.parametrize("fields", TARGETS)
def test_layers_are_targeted_as_by_peft(fields):
    config = LoraConfig(**fields)
    rules = LayerRules(config)
    # An earlier PEFT took the expert's number for the layer's.
    old = Version(peft.__version__) < Version("0.21") and "layers_to_transform" in fields
    paths = [path for path in PATHS if not (old and "experts" in path)]
    found = [path for path in paths if rules.targets(path)]
    assert found == [path for path in paths if check_target_module_exists(config, path)]
    assert found or not fields["target_modules"]


NAMES = st.sampled_from(
    [
        *("q_proj", "self_attn.q_proj", r"self_attn\.q_proj", "^lm_head", "lm_head", "w1", "q"),
        *(r"^model\.layers\.0\.self_attn\.q_proj", "model.layers.1.self_attn.k_proj"),
        *(r".*\.[qk]_proj", r"layers\.(0|10)\..*", "experts.*", "a.b", r"a\.b", "^a.b", "c", "."),
        *(r"^model.layers\.\d+\.mlp\.up_proj", "(?:q|k)", "nowhere", "q_proj$", r"\w+", ""),
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, unique=True, max_size=6))
def test_patterns_give_the_values_that_they_give_in_peft(patterns):
    alphas = {pattern: number for number, pattern in enumerate(patterns)}
    rules = LayerRules(LoraConfig(alpha_pattern=alphas, lora_alpha=-1))
    for path in PATHS:
        wanted = alphas.get(get_pattern_key(list(alphas), path), -1)
        assert rules.scale(path, 1) == wanted, path


def test_ranks_and_rslora():
    config = LoraConfig(r=4, lora_alpha=8, rank_pattern={"q_proj": 16}, use_rslora=True)
    rules = LayerRules(config)
    assert [rules.rank(path) for path in ("a.q_proj", "a.xq_proj", "q_proj")] == [16, 4, 16]
    assert rules.scale("a.q_proj", 16) == 2


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern"])
def test_no_pattern_takes_long(field, pattern, monkeypatch):
    monkeypatch.setattr(safe_regex, "SECONDS", 0.2)
    start = time.thread_time()
    with suppress(InputError):
        value = {pattern: 4} if field.endswith("pattern") else pattern
        rules = LayerRules(LoraConfig(**{"target_modules": ["q_proj"], field: value}))
        for path in ["x" * 60, "model." + "layers." * 100 + "q_proj", "a" * 900, *PATHS]:
            rules.targets(path), rules.rank(path)
    assert time.thread_time() - start < 5  # 0.2 of it the patterns


def test_what_is_wrong_with_a_pattern_is_said():
    for pattern, message in [
        ("(a", "not valid: missing"),
        ("((a{1000}){1000}){1000}", "too large"),
        ("[[:alpha:]]", "read in two ways"),
        (".*" * 300 + "q", "takes too long"),
    ]:
        with pytest.raises(InputError, match=message):
            SafeRegex(pattern, "toys", TimeBudget(0.2)).fullmatch("layers." * 100 + "q_proj")


def test_many_layers_with_a_pattern_each():
    """As merges and EVA write them: a rank for every layer, by its path."""
    paths = [f"model.layers.{i}.mlp.experts.{j}.up_proj" for i in range(40) for j in range(64)]
    for keys in (paths, ["^" + path.replace(".", r"\.") for path in paths]):
        rules = LayerRules(LoraConfig(rank_pattern=dict(zip(keys, range(1, 9999), strict=False))))
        assert [rules.rank(path) for path in paths] == list(range(1, len(paths) + 1))
