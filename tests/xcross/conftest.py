"""A saved base and saved source adapters."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from geodapt.adapters import AdapterBank
from geodapt.models import fingerprint, load_base
from geodapt.xcross.encoders import XCrossEncoder
from geodapt.xcross.head import Head
from geodapt.xcross.integrator import IntegratorSettings
from geodapt.xcross.model import SourceReference, XCross, XCrossConfig
from geodapt.xcross.prompts import PromptSettings
from tests.xcross.small import DECODERS, VOCABULARY, base, filled_bank, shaken, tokenizer

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
            relative = f"../adapters/{path.name}"
            references.append(
                SourceReference(name=path.name, path=relative, sha256=bank[path.name].sha256)
            )
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
