"""What may be asked of the engine."""

import math

import pytest

from geodapt.adapters.gates import Mix, TopAtoms
from geodapt.errors import InputError
from geodapt.serve.generation import EngineSettings, Generation, Sampling


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"frequency_penalty": math.inf}, "frequency_penalty"),
        ({"presence_penalty": math.nan}, "presence_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop": ("end", "")}, "stop"),
        ({"logprobs": 21}, "logprobs"),
        ({"logit_bias": {3: math.nan}}, "token 3"),
    ],
)
def test_sampling_out_of_range_is_refused_by_name(wrong, named):
    with pytest.raises(InputError, match=named):
        Sampling(**{"max_new_tokens": 4, **wrong})


@pytest.mark.parametrize("name", ["slots", "queue", "kv_tokens", "prefill_tokens"])
def test_an_engine_of_nothing_is_refused(name):
    with pytest.raises(InputError, match=name):
        EngineSettings(**{name: 0})


def test_a_generation_needs_the_adapters_that_its_gate_names():
    gate = TopAtoms(4, of=Mix({"b": 0.5, "a": 1.0}))
    assert Generation((1, 2), Sampling(3), gate).adapters == ("a", "b")
    assert Generation((1, 2), Sampling(3)).adapters == ()
