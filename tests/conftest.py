"""Shared fixtures: the command line, tiny random models of each family, and no network."""

import gc
import os
import signal
from functools import partial

gc.disable()  # until all is imported: half of the time of a worker's start
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GEODAPT_PROGRESS", "off")  # lines that a slow machine would print

import pytest  # noqa: E402
import torch  # noqa: E402

from tests.commands import call  # noqa: E402
from tests.tiny_models import tiny_bert, tiny_llama, tiny_t5  # noqa: E402

# A shell's background jobs ignore Ctrl-C and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """On several cores, files with slow tests go first: what is left at the end is short."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What libraries and tests are made of stays: looked through for garbage, it would take a
    quarter of a second at each of the collections that every training asks for."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def geodapt():
    """``geodapt(*arguments)``: the command line in this process and folder."""
    return partial(call, ".")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """An empty cache folder for a module of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODAPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def bert():
    return tiny_bert()


@pytest.fixture
def llama():
    return tiny_llama()


@pytest.fixture
def t5():
    return tiny_t5()
