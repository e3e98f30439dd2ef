"""Modules that are trained in full, found by the endings of their paths."""

import time

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.adapters.peft_files.saved_modules import group_heads


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab.", max_size=4), max_size=4),
    st.lists(st.text("ab.", max_size=9), max_size=4),
)
def test_modules_are_found_by_their_endings_as_peft_does(names, keys):
    def by_hand(key):
        parts = key.split(".")
        paths = (".".join(parts[:i]) for i in range(1, len(parts)))
        return next((path for path in paths if path.endswith(tuple(names))), "")

    heads = group_heads(dict.fromkeys(keys, torch.zeros(1)), names)
    assert set(heads) == {by_hand(key) for key in keys}


def test_a_thousand_modules_to_save_take_no_time():
    names = [f"{i}" + "x" * 900 for i in range(1000)]
    tensors = {f"model.layers.{i}.mlp.up.weight": torch.zeros(1) for i in range(50_000)}
    start = time.process_time()
    assert set(group_heads(tensors, names)) == {""}
    assert time.process_time() - start < 5
