"""A served base with two adapters, behind an engine without a model."""

import pytest

from geodapt.adapters import AdapterBank
from tests.serve.asking import make_service, running
from tests.serve.shelf import small_base, small_tokenizer, write_adapter_folders
from tests.serve.steady import SteadyEngine


@pytest.fixture(scope="session")
def tokenizer():
    return small_tokenizer()


@pytest.fixture
def adapters(tokenizer, tmp_path):
    """A folder with two adapters, and a bank of their base."""
    folder = tmp_path / "adapters"
    folder.mkdir()
    model = small_base(tokenizer)
    write_adapter_folders(model, folder, ["toys", "tools"])
    return folder, AdapterBank(model)


@pytest.fixture
def engine(tokenizer):
    made = SteadyEngine(tokenizer.decode)
    yield made
    made.close()


@pytest.fixture
def serve(engine, adapters, tokenizer):
    """``with serve(**settings) as served``."""
    folder, bank = adapters

    def start(**settings):
        return running(make_service(engine, bank, tokenizer, folder, **settings))

    return start
