"""Saved bases and source adapters, and the command line over small data."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from geodapt.adapters import AdapterBank
from geodapt.models import fingerprint, load_base
from geodapt.xcross.encoders import XCrossEncoder
from geodapt.xcross.head import Head
from geodapt.xcross.model import SourceReference, XCross, XCrossConfig
from geodapt.xcross.settings import IntegratorSettings, PromptSettings
from tests.commands import call
from tests.xcross.small import DECODERS, VOCABULARY, base, filled_bank, shaken, tokenizer
from tests.xcross.worlds import write_ratings, write_reviews

CORPUS = [f"item number {number} is {word}" for number in range(10) for word in ("good", "bad")]


@dataclass
class Shelf:
    """A folder with ``base`` and ``adapters/NAME``."""

    folder: Path

    def save_base(self, family: str = "bert", name: str = "base") -> Path:
        words = tokenizer(CORPUS, decoder=family in DECODERS)
        assert len(words) <= VOCABULARY
        model = base(family)
        if name != "base":  # another base of the same shape
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.01)
        model.save_pretrained(self.folder / name)
        words.save_pretrained(self.folder / name)
        return self.folder / name

    def save_adapters(self, family: str = "bert", names=("toys", "books", "tools")) -> None:
        bank = filled_bank(base(family), names)
        for name in names:
            bank.save(name, self.folder / "adapters" / name)

    def model(self, task="ranking", labels=(), **changed) -> XCross:
        """An X-Cross model on the shelf's base and adapters, with values that do something."""
        loaded, words = load_base(str(self.folder / "base"))
        bank = AdapterBank(loaded)
        references = []
        for path in sorted((self.folder / "adapters").iterdir()):
            bank.load(path.name, path)
            references.append(SourceReference(name=path.name, sha256=bank[path.name].sha256))
        settings = IntegratorSettings(**changed)
        names = [reference.name for reference in references]
        encoder = XCrossEncoder(loaded, bank, names, settings)
        config = XCrossConfig(
            base=str(self.folder / "base"),
            base_fingerprint=fingerprint(loaded),
            sources=references,
            integrator=settings,
            prompt=PromptSettings(max_tokens=40, item_tokens=16),
            head_width=12,
            outputs=len(labels) or 1,
            task=task,
            labels=list(labels),
        )
        head = Head(encoder.width, config.head_width, config.outputs)
        return shaken(XCross(encoder, head, config, words)).eval()


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    """BERT with three adapters."""
    made = Shelf(tmp_path)
    made.save_base()
    made.save_adapters()
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with a base, reviews and ratings, which recipes name by relative paths."""
    folder = tmp_path_factory.mktemp("world")
    Shelf(folder).save_base()
    write_reviews(folder / "reviews.csv")
    write_ratings(folder / "ratings")
    return folder


@pytest.fixture(scope="module")
def geodapt(world):
    """``geodapt(*arguments)``: the command line in this process, in the world's folder."""
    return partial(call, world)
