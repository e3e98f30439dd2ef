"""The bank beside PEFT on a dozen families; ``python -m benchmarks.families`` takes all."""

import pytest

from benchmarks.families import check

FAMILIES = [
    *("bloom", "distilbert", "electra", "fsmt", "gemma3_text", "gpt_neox", "mamba", "mixtral"),
    *("vit", "switch_transformers", "t5", "xlnet"),
]
REFUSED = {  # and why it may be
    ("mixtral", "route"): "a parameter that its module uses",
    ("mixtral", "atoms"): "a parameter that its module uses",
    ("vit", "load"): "out_proj",
    ("switch_transformers", "route"): "experts",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_is_right_or_refused(family, tmp_path):
    found = check(family, tmp_path)
    assert found
    for way, verdict in found.items():
        reason = REFUSED.get((family, way))
        assert verdict == "right" or (
            reason and verdict.startswith("refused") and reason in verdict
        )
