"""Where text comes from, and its tokenizer: parts of a language model's recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field

from geodapt.settings import GivenPath, Seed, Settings, SourceSettings

PLAIN = (".txt", ".md", ".rst", ".txt.gz", ".md.gz", ".rst.gz")
SMALL = (
    *("accelerate", "datasets", "filelock", "huggingface_hub", "jinja2", "peft", "pydantic"),
    *("rich", "safetensors", "tokenizers", "torchmetrics", "typer"),
)
"""Small packages that geodapt depends on, for smoke tests."""
RECORDS = (".jsonl", ".jsonl.gz", ".parquet")
NAME_COLUMN = (
    "Name the column of the text by data.text, or by 'text' of the key that names this source"
)
"""What to do where a source has no such column."""


class ApiTextsSettings(SourceSettings):
    """The items of ``api_calls`` as texts: a sentence or two each."""

    loader = "geodapt.data.corpus.api_texts:load_api_texts"
    kind: Literal["api_texts"] = "api_texts"
    packages: list[str] = Field(default=["numpy", "scipy", "torch"], min_length=1)
    """Packages as ``api_calls`` knows them; these three are there wherever geodapt is."""
    seed: Seed = 0
    """Seed of what is held out."""


class DocsSettings(SourceSettings):
    """The documentation of the packages that are installed here."""

    loader = "geodapt.data.corpus.docs:load_docs"
    kind: Literal["docs"] = "docs"
    packages: list[str] | None = Field(default=None, min_length=1)
    """Names as pip knows them; all that are installed when not given."""
    seed: Seed = 0
    """Seed of the packages that are held out."""

    def _smallest(self) -> dict[str, Any]:
        return {"packages": self.packages or list(SMALL)}


class TextSettings(SourceSettings):
    """The user's own text."""

    loader = "geodapt.data.corpus.text:load_text"
    kind: Literal["text"] = "text"
    path: GivenPath
    """A .txt, .md, .rst, .jsonl or .parquet file (.gz of the text files), or a folder of such."""
    text: str = "text"
    """The key or column of the text, in JSONL and Parquet."""
    lines: bool = False
    """Every line of plain text is a document, as every record is."""
    seed: Seed = 0
    """Seed of what is held out."""


class HubSettings(SourceSettings):
    """A data set on the hub; its documents are read as they come, and only as many as asked for."""

    loader = "geodapt.data.corpus.hub:load_hub"
    kind: Literal["hub"] = "hub"
    name: str = "wikimedia/wikipedia"
    """The data set's name."""
    config: str | None = None
    """One of its configurations, such as 20231101.en of Wikipedia."""
    split: str = "train"
    """The split whose documents are read; they are split anew."""
    text: str = "text"
    """The column of the text."""
    max_documents: int | None = Field(default=None, ge=1)
    """Largest number of documents to read; all when not given."""
    seed: Seed = 0
    """Seed of what is held out."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(max_documents=200)


CorpusSettings = Annotated[
    ApiTextsSettings | DocsSettings | TextSettings | HubSettings,
    Field(discriminator="kind"),
]
"""Where text comes from: the ``data:`` part of a recipe, chosen by its ``kind``."""


class TokenizerSettings(Settings):
    """A byte-pair encoding that is trained on the training split."""

    vocab_size: int = Field(default=4096, ge=300)
    """Tokens: 3 special ones, 256 bytes, and merges."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(vocab_size=512)
