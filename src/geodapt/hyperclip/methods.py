"""Names of the ways to tune, which a recipe lists and its table shows.

========================  ==================================================================
``frozen``                nothing but the head
``full``                  every weight of the CLIP
``query-value``           query and value weights of both towers, as CAT-Seg
``lora``                  LoRA on query, key and value
``lathadapter``           LatHAdapter on the words; the CLIP stays as it is
``oft-N``                 PEFT's OFT: rotations in blocks of N
``hyperclip-N``           scalings in blocks of N; then, in this order, any of ``-shared`` (one
                          block a weight), ``-text`` or ``-image`` (one tower), ``-radius-R``
                          (texts drawn to the hyperbolic radius R) or ``-radius-auto``
========================  ==================================================================
"""

import re
from typing import Literal, NamedTuple

Kind = Literal["frozen", "full", "query-value", "lora", "lathadapter", "oft", "hyperclip"]
PLAIN: dict[str, str] = {
    "frozen": "Frozen CLIP",
    "full": "All of CLIP",
    "query-value": "Query and value",
    "lora": "LoRA",
    "lathadapter": "LatHAdapter on the words",
}
PATTERN = re.compile(
    r"hyperclip-(?P<block>[1-9]\d{0,4})(?P<shared>-shared)?(?:-(?P<tower>text|image))?"
    r"(?:-radius-(?P<radius>auto|\d{1,6}(?:\.\d{1,6})?))?"
)
ROTATED = re.compile(r"oft-(?P<block>[1-9]\d{0,4})")


class TuningMethod(NamedTuple):
    """What a method's name says."""

    name: str
    kind: Kind
    block: int = 0
    """Of scalings and rotations."""
    shared: bool = False
    tower: Literal["text", "image"] | None = None
    """The only tower that is scaled; both where none."""
    radius: float | Literal["auto"] | None = None
    """Hyperbolic radius that texts are drawn to; ``auto``: the one that validation chooses."""

    @classmethod
    def parse(cls, name: str) -> "TuningMethod":
        """Read a name; raises ValueError for one that is none."""
        if name in PLAIN:
            return cls(name, name)  # type: ignore[arg-type]
        if match := ROTATED.fullmatch(name):
            return cls(name, "oft", int(match["block"]))
        if match := PATTERN.fullmatch(name):
            radius = match["radius"]
            given = float(radius) if radius not in (None, "auto") else radius
            if given == 0:
                raise ValueError(f"method '{name}': a radius is above 0")
            tower, shared = match["tower"], match["shared"] is not None
            return cls(name, "hyperclip", int(match["block"]), shared, tower, given)  # type: ignore[arg-type]
        raise ValueError(
            f"method '{name}' is unknown; there are {', '.join(PLAIN)}, oft-N, and hyperclip-N "
            "with -shared, -text or -image, and -radius-R or -radius-auto after it"
        )

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.kind in PLAIN:
            return PLAIN[self.kind]
        if self.kind == "oft":
            return f"OFT, blocks of {self.block}"
        parts = [f"HyperCLIP, blocks of {self.block}"]
        parts += ["shared"] * self.shared
        if self.tower:
            parts.append(f"{self.tower}s only")
        if self.radius == "auto":
            parts.append("radius chosen")
        elif self.radius is not None:
            parts.append(f"radius {self.radius:g}")
        return ", ".join(parts)

    def at_radius(self, radius: float) -> "TuningMethod":
        """The same with texts drawn to a radius."""
        name = f"{self.name.partition('-radius-')[0]}-radius-{radius:.4g}"
        return self._replace(name=name, radius=radius)
