"""One source, read, measured and judged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodapt.extras import require_transport
from geodapt.files import write_text
from geodapt.probe.figures import Figures, measure
from geodapt.probe.report import probe_page
from geodapt.probe.sources import load_source
from geodapt.probe.summary import as_json, measured_on, summary_table
from geodapt.probe.verdict import Verdict, verdict


@dataclass(frozen=True)
class Probed:
    """The figures of a source beside those of its control, and what they mean."""

    figures: Figures
    verdict: Verdict

    @property
    def table(self) -> list[tuple[str, str, str]]:
        """(figure, of the source, of the control)."""
        return summary_table(self.figures)

    @property
    def json(self) -> str:
        """All figures for a machine."""
        return as_json(self.figures, self.verdict)

    def write_page(self, path: Path | str) -> Path:
        """Write the page with the pictures; returns where it is."""
        path = Path(path)
        write_text(path, probe_page(self.figures, self.verdict))
        return path

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name}: {own} (control {other})" for name, own, other in self.table)
        return f"{self.figures.source.name}: {self.verdict.headline}\n{rows}"

    @property
    def measured_on(self) -> str:
        """What the figures were taken on, in a sentence."""
        return measured_on(self.figures)


def probe_source(source: str, seed: int = 0, **choices: Any) -> Probed:
    """Is this data hyperbolic? What ``geodapt probe`` does, from Python.

    ``source`` and ``choices`` are those of :func:`load_source`. Raises :class:`InputError` for
    what cannot be probed, and where the package of optimal transport is missing::

        probe_source("minilm", sample=500).write_page("minilm.html")
    """
    require_transport()
    figures = measure(load_source(source, seed=seed, **choices), seed)
    return Probed(figures, verdict(figures))
