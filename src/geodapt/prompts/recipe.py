"""The `prompts` recipe: hosts, with and without an adapter, under one of four protocols."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from geodapt.data.picture_settings import PictureSource
from geodapt.models import locate_base
from geodapt.prompts.glyph_base import check_new_characters, glyph_base, larger_glyph_base
from geodapt.prompts.settings import (
    HOSTS,
    CoOp,
    HostSettings,
    MaPLe,
    PlainClip,
    PromptKD,
    PromptSRC,
)
from geodapt.runs import Recipe
from geodapt.settings import GivenPath, Name, repeated
from geodapt.tinyclip.settings import TINYCLIP, TinyClipSettings

HostName = Literal["clip", "coop", "maple", "promptsrc", "promptkd"]
NONE, ADAPTER, TUNED = "none", "lathadapter", "tuned"


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


LABELS = {
    "clip": "CLIP",
    "coop": "CoOp",
    "maple": "MaPLe",
    "promptsrc": "PromptSRC",
    "promptkd": "PromptKD",
    "lathadapter": "LatHAdapter",
}
"""Hosts and adapters, as tables and pages call them."""


class PromptsRecipe(Recipe):
    """Tune a CLIP on a few pictures of each class, and ask it for others."""

    recipe: Literal["prompts"] = "prompts"
    experiment = "geodapt.prompts.experiment:PromptsExperiment"
    protocol: Literal["base-to-new", "few-shot", "cross", "domain"] = "base-to-new"
    """base-to-new: tune on half of the classes, ask for each half; few-shot: all classes; cross and
    domain: all classes, then the pictures of `others` as well."""
    learner: Annotated[list[HostName], BeforeValidator(_listed)] = Field(
        default=["clip", "maple", "promptsrc"], min_length=1
    )
    """The hosts, one or a list."""
    adapter: Annotated[list[Name], BeforeValidator(_listed)] = Field(
        default=[NONE, ADAPTER], min_length=1
    )
    """Each host runs with each of these: none, lathadapter, or a name of `variants`."""
    lathadapter: dict[str, Any] = {}
    """The adapter's settings."""
    variants: dict[Name, dict[str, Any]] = {}
    """Further adapters by name: what each changes of the adapter's settings."""
    base: str = "clip-glyphs"
    """A CLIP or SigLIP: a folder or a hub name; clip-glyphs needs no network."""
    glyph_base: TinyClipSettings = Field(default_factory=glyph_base)
    """What clip-glyphs is trained on here: half of the characters with additions are kept new."""
    teacher: Literal["tuned"] | GivenPath | None = None
    """Of promptkd: the folder of a saved learner or of a CLIP; tuned: PromptSRC, tuned here on the
    same draw."""
    teacher_base: str | None = None
    """The CLIP of a tuned teacher, as base; clip-glyphs: that of teacher_glyphs. None: the base."""
    teacher_glyphs: TinyClipSettings = Field(default_factory=larger_glyph_base)
    """What clip-glyphs is as a teacher."""
    data: PictureSource
    """Labelled pictures; `kind` chooses the loader."""
    further: list[PictureSource] = []
    """Under base-to-new and few-shot: the protocol is repeated on each; figures are means over all
    sets."""
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
    """Values of each host that has the key, such as depth or flip, and does not say otherwise; of
    training: `training: {batch_size: 32}`."""

    @model_validator(mode="before")
    @classmethod
    def _every_host(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(every := given.get("every_host"), dict):
            return given
        hosts = {}
        for name, kind in HOSTS.items():
            below = {key: value for key, value in every.items() if key in kind.model_fields}
            own = given.get(name, {})
            if isinstance(own, HostSettings):
                own = own.model_dump(exclude_unset=True)
            if isinstance(own, dict):  # anything else is refused as it is
                hosts[name] = {**below, **own}
                of_all, of_one = below.get("training"), own.get("training")
                if isinstance(of_all, dict) and isinstance(of_one, dict):
                    hosts[name]["training"] = {**of_all, **of_one}
        return {**given, **hosts}

    @model_validator(mode="after")
    def _consistent(self) -> "PromptsRecipe":
        for name in ("learner", "adapter", "shots", "seeds"):
            if twice := repeated(getattr(self, name)):
                raise ValueError(f"{name}: {twice[0]} given more than once")
        if taken := [name for name in self.variants if name in (NONE, ADAPTER)]:
            raise ValueError(f"variants: '{taken[0]}' has a meaning already; take another name")
        known_adapters = [NONE, ADAPTER, *self.variants]
        if strange := [name for name in self.adapter if name not in known_adapters]:
            raise ValueError(
                f"adapter: '{strange[0]}' is unknown; there are {', '.join(known_adapters)}"
            )
        if "promptkd" in self.learner and self.teacher is None:
            raise ValueError(
                "learner promptkd needs a teacher: tuned, or the folder of a learner or a CLIP"
            )
        if self.teacher_base is not None and self.teacher != TUNED:
            raise ValueError("teacher_base is the CLIP of a teacher that is tuned here; set both")
        if self.protocol == "cross" and not self.others:
            raise ValueError("protocol cross needs others: pictures to ask it about")
        if self.others and self.protocol in ("base-to-new", "few-shot"):
            raise ValueError(f"protocol {self.protocol} asks for data alone; leave others out")
        if self.further and self.protocol in ("cross", "domain"):
            raise ValueError(f"protocol {self.protocol} tunes on data alone; leave further out")
        sources = [self.data, *self.further, *self.others]
        check_new_characters(self.base, self.glyph_base.data, sources)
        if "promptkd" in self.learner and self.teacher_base is not None:
            check_new_characters(self.teacher_base, self.teacher_glyphs.data, sources)
        # Of all hosts: those that run are chosen by another key, beside a recipe's every_host.
        known = {key for host in HOSTS.values() for key in host.model_fields}
        if unknown := [key for key in self.every_host if key not in known]:
            raise ValueError(f"every_host: no host has the key '{unknown[0]}'")
        return self

    def host(self, name: str) -> HostSettings:
        """A host's settings by its name in `learner`."""
        own: HostSettings = getattr(self, name)
        return own

    def adapter_settings(self, name: str) -> dict[str, Any]:
        """The settings of an adapter by its name in `adapter`."""
        return {**self.lathadapter, **self.variants.get(name, {})}

    def require_inputs(self) -> None:
        super().require_inputs()
        for base in {self.base, self.teacher_base} - {TINYCLIP, None}:
            locate_base(str(base))

    def _idle(self) -> set[str]:
        drawn = {"glyph_base"} if self.base == TINYCLIP else set()
        if "promptkd" in self.learner and self.teacher_base == TINYCLIP:
            drawn.add("teacher_glyphs")
        return {"glyph_base", "teacher_glyphs"} - drawn

    def _smallest(self) -> dict[str, Any]:
        return {
            "seeds": self.seeds[:1],
            "shots": self.shots[:1],
            "adapter": self.adapter[:2],
            "further": [source.small() for source in self.further[:1]],
        }


RECIPES = (PromptsRecipe,)
