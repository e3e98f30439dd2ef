"""What a user chooses about a comparison of prompt learners."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from geodapt.data.glyph_settings import GlyphSettings
from geodapt.data.picture_settings import PictureSource
from geodapt.prompts.settings import CoOp, HostSettings, MaPLe, PlainClip, PromptKD, PromptSRC
from geodapt.settings import GivenPath, Settings, repeated
from geodapt.tinyclip.settings import TinyClipSettings
from geodapt.training.settings import TrainingSettings

HostName = Literal["clip", "coop", "maple", "promptsrc", "promptkd"]
AdapterName = Literal["none", "lathadapter"]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class PromptStudySettings(Settings):
    """Hosts, each with and without adapters, on some pictures under one of four protocols."""

    protocol: Literal["base-to-new", "few-shot", "cross", "domain"] = "base-to-new"
    """base-to-new: tune on half of the classes, ask for each half; few-shot: all classes; cross and
    domain: all classes, then the pictures of `others` as well."""
    learner: Annotated[list[HostName], BeforeValidator(_listed)] = Field(
        default=["clip", "maple", "promptsrc"], min_length=1
    )
    """The hosts, one or a list."""
    adapter: Annotated[list[AdapterName], BeforeValidator(_listed)] = Field(
        default=["none"], min_length=1
    )
    """Each host runs with each of these."""
    lathadapter: dict[str, Any] = {}
    """The adapter's settings."""
    base: str = "clip-glyphs"
    """A CLIP or SigLIP: a folder or a hub name; clip-glyphs needs no network."""
    glyph_base: TinyClipSettings = TinyClipSettings(data=GlyphSettings(new=0.5))
    """What clip-glyphs is trained on here: half of the characters with additions are kept new."""
    teacher: GivenPath | None = None
    """Of promptkd: the folder of a saved learner or of a CLIP."""
    data: PictureSource
    """Labelled pictures; `kind` chooses the loader."""
    others: list[PictureSource] = []
    """Test pictures of cross and domain; domain takes those of data's own that only test, too."""
    shots: list[Annotated[int, Field(ge=1)]] = Field(default=[16], min_length=1)
    """Training pictures of each class."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 2, 3], min_length=1)
    """Of the draw of pictures and of what is random in training."""
    clip: PlainClip = PlainClip()
    coop: CoOp = CoOp()
    maple: MaPLe = MaPLe()
    promptsrc: PromptSRC = PromptSRC()
    promptkd: PromptKD = PromptKD()
    every_host: dict[str, Any] = {}
    """Values that replace those of each host that has the key, such as depth or flip; of training:
    `training: {batch_size: 32}`."""

    @model_validator(mode="after")
    def _consistent(self) -> "PromptStudySettings":
        for name in ("learner", "adapter", "shots", "seeds"):
            if twice := repeated(getattr(self, name)):
                raise ValueError(f"{name}: {twice[0]} given more than once")
        if "promptkd" in self.learner and self.teacher is None:
            raise ValueError("learner promptkd needs a teacher: the folder of a learner or a CLIP")
        if self.protocol == "cross" and not self.others:
            raise ValueError("protocol cross needs others: pictures to ask it about")
        if self.others and self.protocol in ("base-to-new", "few-shot"):
            raise ValueError(f"protocol {self.protocol} asks for data alone; leave others out")
        known = {key for name in self.learner for key in type(getattr(self, name)).model_fields}
        if unknown := [key for key in self.every_host if key not in known]:
            raise ValueError(f"every_host: no host that runs has the key '{unknown[0]}'")
        for name in self.learner:
            self.host(name)
        return self

    def host(self, name: str) -> HostSettings:
        """A host's settings with the values of `every_host`."""
        own: HostSettings = getattr(self, name)
        fields = type(own).model_fields
        values = {key: value for key, value in self.every_host.items() if key in fields}
        if isinstance(training := values.get("training"), dict):
            merged = {**own.training.model_dump(), **training}
            values["training"] = TrainingSettings.model_validate(merged).model_dump()
        return type(own).model_validate({**own.model_dump(), **values})

    def _smallest(self) -> dict[str, Any]:
        few = {"epochs": 2}
        training = self.every_host.get("training") or {}
        every = {**self.every_host, "training": {**training, **few}}
        return {"seeds": self.seeds[:1], "shots": self.shots[:1], "every_host": every}
