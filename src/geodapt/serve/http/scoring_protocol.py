"""Requests for scores: OpenAI's embeddings, Cohere's, Jina's and TEI's rerank, vLLM's classify."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from geodapt.serve.protocol import Body

Text = Annotated[str, Field(min_length=1, max_length=100_000)]
Picture = Annotated[str, Field(min_length=1)]
"""A file in base64 (PNG, JPEG or WebP), alone or as a ``data:`` address."""
Texts = Annotated[list[Text], Field(min_length=1, max_length=2048)]


class EmbeddingBody(Body):
    """``POST /v1/embeddings``."""

    model: str | None = None
    input: Text | Texts
    """Texts; tokens are another tokenizer's and not taken."""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    """Vectors are not cut: their radius would mean nothing."""
    user: str | None = None
    hierarchy: bool = False
    """Adds ``radius``, the distance from the nearest root: small is general."""


class TextDocument(Body):
    text: Text


class RerankBody(Body):
    """``POST /v1/rerank``, as Cohere and Jina have it."""

    model: str | None = None
    query: Text | Texts
    """What was chosen before, oldest first; one text is a history of one."""
    documents: Annotated[list[Text | TextDocument], Field(min_length=1, max_length=2048)] | None = (
        None
    )
    candidates_index: str | None = None
    """A stored catalogue, in place of ``documents``."""
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False
    max_tokens_per_doc: int | None = None
    """Taken and not used: the model was trained with a length of its own."""

    @model_validator(mode="after")
    def _one(self) -> "RerankBody":
        if (self.documents is None) == (self.candidates_index is None):
            raise ValueError("give either 'documents' or 'candidates_index'")
        return self

    @property
    def texts(self) -> list[str]:
        return [d if isinstance(d, str) else d.text for d in self.documents or ()]


class RankBody(Body):
    """TEI's ``POST /rerank``."""

    query: Text | Texts
    texts: Texts
    return_text: bool = False
    raw_scores: bool = True
    """Scores are X-Cross' own; there is no other scale."""
    truncate: bool = True
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None


class RetrieveBody(Body):
    """``POST /v1/retrieve``."""

    model: str | None = None
    queries: Text | Texts | None = None
    images: Annotated[list[Picture], Field(min_length=1, max_length=64)] | None = None
    """Pictures in base64, in place of ``queries``, where the encoder is a CLIP or a SigLIP."""
    index: str | None = None
    """A stored index."""
    texts: Texts | None = None
    """Candidates, in place of ``index``."""
    steps: int = Field(50, ge=2, le=1000)
    """Radii between the most general and the most specific candidate."""

    @model_validator(mode="after")
    def _one(self) -> "RetrieveBody":
        if (self.index is None) == (self.texts is None):
            raise ValueError("give either 'index' or 'texts'")
        if (self.queries is None) == (self.images is None):
            raise ValueError("give either 'queries' or 'images'")
        return self


class ClassifyBody(Body):
    """vLLM's ``POST /classify``."""

    model: str | None = None
    input: Text | Texts
    labels: Annotated[Texts, Field(max_length=1000)] | None = None
    """Zero-shot: the encoder compares each text with each label."""
    user: str | None = None


class PredictBody(Body):
    """TEI's ``POST /predict``."""

    inputs: Text | Texts
    labels: Annotated[Texts, Field(max_length=1000)] | None = None
    raw_scores: Literal[False] = False
    truncate: bool = True


class ShelfBody(Body):
    """``PUT /v1/catalogues/{name}`` and ``PUT /v1/indexes/{name}``."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=100_000)]


def as_list(texts: str | list[str]) -> list[str]:
    """One text or several, as several."""
    return [texts] if isinstance(texts, str) else texts
