"""The `compress` recipe: what `geodapt compress` runs, and continues after a kill."""

from typing import Any, Literal

from pydantic import Field, field_validator

from geodapt.compress.layer_format import CompressionMethod
from geodapt.compress.target import Target
from geodapt.data.corpus.sources import TextSource
from geodapt.errors import InputError
from geodapt.extras import require_torchao
from geodapt.models import locate_base
from geodapt.runs import Recipe, RunFolder


class CompressRecipe(Recipe):
    """Make a model smaller, and measure what that costs."""

    recipe: Literal["compress"] = "compress"
    experiment = "geodapt.compress.experiment:CompressExperiment"
    model: str = "minilm"
    """What to compress: a folder, a hub name, or minilm (needs no network)."""
    adapter: str | None = None
    """A LoRA adapter (PEFT folder or hub name) to merge into the model first."""
    method: str = "lowrank_plus_int4"
    """svd, int8, int4, int, lowrank_plus_int4, lowrank_plus_int; other widths from 2 to 8."""
    bits_per_weight: float | None = Field(default=None, gt=0)
    """Size of the compressed layers' weights, everything counted in."""
    megabytes: float | None = Field(default=None, gt=0)
    """The same in MB, all layers together."""
    loss: float | None = Field(default=None, gt=0, lt=1)
    """Instead: the mean share of the layers' output energy that may be lost."""
    rank: int | None = Field(default=None, ge=1)
    """Instead: the same rank for every layer."""
    group: int | None = Field(default=None, ge=1)
    """Inputs that share a scale; none: whichever the budget allows."""
    calibrate: TextSource | None = None
    """Texts whose inputs say which errors matter: a file or folder (text, JSONL, Parquet),
    api-calls or docs (built in), or a hub data set as owner/name:config."""
    evaluate: TextSource | None = None
    """Texts to measure on; none: a held-out tenth of those to calibrate on, or of api-calls."""
    texts: int = Field(default=256, ge=1)
    """How many texts to calibrate on, drawn by the seed."""
    measured_texts: int = Field(default=200, ge=2)
    """How many texts to measure on at most."""
    max_tokens: int = Field(default=128, ge=8)
    """Longer texts are cut."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the model is loaded, and saved where it is not compressed."""
    analyse: bool = False
    """Compare the errors of SVD and of integers at this size, layer by layer."""

    def require_inputs(self) -> None:
        super().require_inputs()
        method = CompressionMethod.named(self.method)
        self.target.check(method)
        if method.integers:
            require_torchao()
        locate_base(self.model)

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        try:
            CompressionMethod.named(method)
        except InputError as error:
            raise ValueError(str(error)) from None
        return method

    @property
    def target(self) -> Target:
        """How small, or how good."""
        return Target(self.bits_per_weight, self.megabytes, self.loss, self.rank, self.group)

    def run(self, folder: RunFolder) -> dict[str, Any]:
        title = self.title or f"{self.model}, {self.method}"
        return {**super().run(folder), "title": title}


RECIPES = (CompressRecipe,)
