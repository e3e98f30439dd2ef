"""What a compression leaves in ``results.json``, written by the run and read by its page."""

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class LayerReport:
    """What one layer became."""

    path: str
    shape: tuple[int, int]
    form: str
    bytes: int
    weight_error: float
    """``|W - W'|^2 / |W|^2``."""
    output_error: float | None = None
    """``E |(W - W') x|^2 / E |W x|^2`` over the calibration inputs, where there are any."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class CompressionSummary(BaseModel):
    """What the model became: ``compression``."""

    method: str = ""
    weights: int
    """Entries of the compressed weights."""
    numbers: int = 0
    """Of the whole model."""
    left: dict[str, int] = {}
    """Kind of parameter -> how many numbers of it were left as they are."""
    sentence: str = ""
    """Which share of the model's numbers is compressed, and what is left."""
    bytes_before: int
    bytes: int
    bits_per_weight: float
    calibrated: bool
    measured_on: str = ""
    layers: list[LayerReport]


class AnalysedLayer(BaseModel):
    """The errors of one layer by kind, and for some layers their pictures."""

    path: str
    kinds: dict[str, dict[str, Any]]


class ErrorAnalysis(BaseModel):
    """The errors of SVD and of integers at equal size: ``analysis``."""

    bits_per_weight: float
    verdict: list[str]
    layers: list[AnalysedLayer]
