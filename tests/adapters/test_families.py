"""The bank beside PEFT on a dozen families; ``benchmarks/families.py`` takes all."""

import pytest
from families import check

FAMILIES = [
    *("bloom", "distilbert", "electra", "fsmt", "gemma3_text", "gpt_neox", "mamba", "mixtral"),
    *("vit", "switch_transformers", "t5", "xlnet"),
]
REFUSED = {("switch_transformers", "route"): "has a shape that depends on the rows' content"} | {
    ("mamba", way): "dt_proj is read without calling the layer"
    for way in ("one", "mix", "route", "atoms")
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_is_right_or_refused(family, tmp_path):
    found = check(family, tmp_path)
    assert found
    for way, verdict in found.items():
        if (family, way) in REFUSED:
            assert REFUSED[family, way] in verdict.removeprefix("refused")
        else:
            assert verdict == "right", way
