"""A hub that cannot be reached is told at once, wherever a name is looked up on it."""

import pytest
from huggingface_hub import constants

from geodapt.adapters import Adapter
from geodapt.data.amazon import load_amazon
from geodapt.data.classification import load_classification
from geodapt.data.corpus import HubSettings, load_corpus
from geodapt.data.settings import AmazonSettings, ClassificationSettings
from geodapt.errors import InputError
from geodapt.hub import require_hub
from geodapt.hyperclip import OpenDetector, OpenPanoptic, OpenSegmenter
from geodapt.models import load_base
from geodapt.xcross.model import XCross

LOOKUPS = {
    "base": lambda: load_base("no-such-owner/no-such-model"),
    "adapter": lambda: Adapter.from_pretrained("no-such-owner/no-such-adapter"),
    "text": lambda: next(
        load_corpus(HubSettings(name="no-such-owner/no-such-texts")).documents("train")
    ),
    "labels": lambda: load_classification(
        ClassificationSettings(path="no-such-owner/no-such-labels", domains=["a", "b"])
    ),
    "sequences": lambda: load_amazon(
        AmazonSettings(path="no-such-owner/no-such-reviews", domains=["Toys", "Tools"])
    ),
}


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_it_is_told_at_once(unreachable, lookup, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(InputError, match=r"no-such-.*http://127\.0\.0\.1:9 cannot be reached"):
        LOOKUPS[lookup]()
    assert waits == []  # the hub's client alone waits and tries again, for 23 s


def test_nothing_is_asked_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    require_hub("owner/name")


def test_nothing_is_asked_for_what_is_in_the_cache(unreachable, monkeypatch, tmp_path):
    commit = "0" * 40
    snapshot = tmp_path / "models--owner--name" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    require_hub("owner/name", "config.json")
    with pytest.raises(InputError, match="cannot be reached"):
        require_hub("owner/name", "adapter_config.json")


@pytest.mark.parametrize("model", [OpenDetector, OpenPanoptic, OpenSegmenter, XCross])
def test_an_option_that_nothing_reads_is_refused(model, tmp_path):
    for source in (tmp_path, "owner/name"):
        with pytest.raises(InputError, match=r"unknown option 'tau' .* there are revision, token"):
            model.from_pretrained(source, tau=1)


CLIENTS = {
    "adapter": "huggingface_hub.snapshot_download",
    "text": "geodapt.data.corpus.hub.load_dataset",
    "labels": "geodapt.data.classification.load_dataset",
    "sequences": "geodapt.data.amazon.hf_hub_download",
}


@pytest.mark.parametrize("lookup", CLIENTS)
def test_an_error_without_words_is_called_by_its_type(lookup, monkeypatch):
    def fail(*arguments, **options):
        raise TimeoutError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(CLIENTS[lookup], fail)
    with pytest.raises(InputError, match="TimeoutError"):
        LOOKUPS[lookup]()
