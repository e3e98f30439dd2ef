"""Shared fixtures: the command line, tiny random models of each family, and no network.

Libraries are imported late, for the process that only hands the tests out to others.
"""

import gc
import logging
import os
import signal
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else processes that import torch
os.environ.setdefault("GEODAPT_PROGRESS", "off")  # lines that a slow machine would print

import pytest

for name in ("torchao", "torch.utils._pytree"):  # which speak of other devices when imported
    logging.getLogger(name).setLevel(logging.ERROR)

# A shell's background jobs ignore Ctrl-C and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """On several cores, files with slow tests go first: what is left at the end is short."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_collection():
    """Imports are not looked through for garbage, which would take as long again, and no test of
    properties fails because a machine is slow."""
    from hypothesis import HealthCheck, settings

    slow_is_right = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("geodapt", max_examples=40, **slow_is_right)
    settings.load_profile("geodapt")
    gc.disable()


def pytest_collection_finish():
    """What libraries and tests are made of stays: looked through for garbage, it would take a
    quarter of a second at each of the collections that every training asks for."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seed():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def geodapt():
    """``geodapt(*arguments)``: the command line in this process and folder."""
    from tests.commands import call

    return partial(call, ".")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """An empty cache folder for a module of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODAPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def bert():
    from tests.tiny_models import tiny_bert

    return tiny_bert()


@pytest.fixture
def llama():
    from tests.tiny_models import tiny_llama

    return tiny_llama()


@pytest.fixture
def t5():
    from tests.tiny_models import tiny_t5

    return tiny_t5()
