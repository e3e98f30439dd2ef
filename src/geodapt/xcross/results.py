"""What an X-Cross run leaves in ``results.json``, written by the run and read by its page."""

from pydantic import BaseModel, model_validator

Exchange = list[list[list[float]]]
"""Layers x receiving stream x giving stream."""

KINDS = {"direct": "Direct", "interaction": "Interaction"}


class Contributions(BaseModel):
    """What the streams gave each other, the mean over the test set."""

    streams: list[str]
    layers: list[int]
    direct: Exchange
    interaction: Exchange
    weights: list[float] = []

    @model_validator(mode="after")
    def _shapes(self) -> "Contributions":
        for kind in KINDS:
            check_shape(kind, getattr(self, kind), len(self.layers), len(self.streams))
        if self.weights and len(self.weights) != len(self.streams):
            raise ValueError(f"{len(self.weights)} weights for {len(self.streams)} streams")
        return self


def check_shape(kind: str, values: Exchange, layers: int, streams: int) -> None:
    """Raise ValueError unless there is one value per layer, receiver and giver."""
    if len(values) != layers or any(
        len(layer) != streams or any(len(row) != streams for row in layer) for layer in values
    ):
        raise ValueError(
            f"'{kind}' is not {layers} layers x {streams} receivers x {streams} givers"
        )


class Candidate(BaseModel):
    """An item that could come next."""

    name: str
    score: float
    is_target: bool = False


class Example(BaseModel):
    """One test case: what came before, and what the model thinks of every candidate."""

    history: list[str] = []
    """The items so far, where items are ranked."""
    text: str = ""
    """What is classified, where labels are."""
    candidates: list[Candidate]
    direct: Exchange = []
    interaction: Exchange = []
