"""Options of several processes, which would have no effect in one, are refused there."""

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


def test_a_type_of_numbers_needs_a_language_model(geodapt):
    done = geodapt("score", "x", "--embed", "x", "--out", "y", "--dtype", "float32")
    assert (done.code, "--generate" in done.err) == (2, True), done.err
