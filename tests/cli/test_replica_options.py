"""Options that would have no effect are refused."""

import pytest


@pytest.mark.parametrize(
    "option", [("--replicas", "4"), ("--replica-cores", "1"), ("--ray-address", "a:1")]
)
@pytest.mark.parametrize("command", [("serve", "x"), ("score", "x", "--embed", "x", "--out", "y")])
def test_options_of_replicas_need_ray(geodapt, command, option):
    done = geodapt(*command, *option)
    assert (done.code, done.err) == (
        2,
        f"error: {option[0]} is for several processes; give --ray, too\n",
    )


@pytest.mark.parametrize(
    "option", [("--dtype", "float32"), ("--slots", "16"), ("--capacity", "4"), ("--adapters", "z")]
)
def test_options_of_a_language_model_need_one(geodapt, option):
    done = geodapt("score", "x", "--embed", "x", "--out", "y", *option)
    assert (done.code, done.err) == (
        2,
        f"error: {option[0]} is for a language model; name it (--generate)\n",
    )


def test_places_for_adapters_need_some(geodapt):
    done = geodapt("score", "x", "--generate", "x", "--out", "y", "--capacity", "4")
    assert (done.code, "--adapters" in done.err) == (2, True), done.err
