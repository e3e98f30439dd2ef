"""Every claim of the documents: what was measured, how sure it is, and the command that repeats it.

    python benchmarks/claims.py                      # all rows: name, verdict, minutes
    python benchmarks/claims.py NAME                 # what could be seen; then the row's command
    python benchmarks/claims.py NAME --set hierarcaps=FILE
    python benchmarks/claims.py --write              # the table of docs/claims.md

A row's command runs in a folder of its own (``--out``, runs/claims/NAME) and is resumable as far as
the command itself is: called again, a finished row shows its output and an unfinished one goes on.
"""

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.stats import t as student

from geodapt.errors import InputError
from geodapt.files import read_json, write_json, write_text

HERE = Path(__file__).parent
CLAIMS, PAGE = HERE / "claims.yaml", HERE.parent / "docs/claims.md"
BEGIN, END = "<!-- the table: claims.py --write -->", "<!-- end of the table -->"
VERDICTS = ("holds", "does not", "cannot be told here", "open")
CONFIDENCE = 0.95


class Difference(BaseModel):
    """Of two rows, ``[mean, standard deviation]`` over so many runs; or one with its error."""

    model_config = ConfigDict(extra="forbid")
    what: str
    runs: int
    ours: tuple[float, float] | None = None
    other: tuple[float, float] | None = None
    difference: float | None = None
    error: float | None = None
    unit: str = ""
    relative: bool = False

    def interval(self) -> tuple[float, float]:
        """The difference and half of its 95 % interval (Welch's, or Student's)."""
        if self.ours is None or self.other is None:
            assert self.difference is not None
            assert self.error is not None
            return self.difference, _quantile(self.runs - 1) * self.error
        a, b = (std**2 / self.runs for _, std in (self.ours, self.other))
        freedom = (a + b) ** 2 / (a**2 + b**2) * (self.runs - 1) if a + b else math.inf
        scale = 100 / self.other[0] if self.relative else 1.0
        middle = self.ours[0] - self.other[0]
        return scale * middle, scale * _quantile(freedom) * math.sqrt(a + b)

    def __str__(self) -> str:
        middle, half = self.interval()
        digits = 1 if self.relative or self.unit == "points" else 3
        unit = " %" if self.relative else f" {self.unit}" if self.unit else ""
        low, high = (f"{value:+.{digits}f}" for value in (middle - half, middle + half))
        return f"{self.what}: {middle:+.{digits}f}{unit} ({low} to {high})"


class Plan(BaseModel):
    """What a measurement could see, before it is made."""

    model_config = ConfigDict(extra="forbid")
    what: str
    test_rows: int | None = None
    discordant: float | None = None
    """Share of test rows that exactly one of the two sides is expected to get right."""
    runs: int | None = None
    spread: float | None = None
    """Expected standard deviation of the difference between runs."""
    unit: str = "points"

    def visible(self) -> float:
        """Half of the 95 % interval that is to be expected: smaller differences stay unseen."""
        if self.test_rows is not None and self.discordant is not None:
            return 100 * _quantile(math.inf) * math.sqrt(self.discordant / self.test_rows)
        assert self.runs is not None
        assert self.spread is not None
        return _quantile(self.runs - 1) * self.spread / math.sqrt(self.runs)


class Claim(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    claim: str
    source: str
    command: str
    minutes: float
    verdict: str
    figure: str = ""
    difference: Difference | None = None
    plan: Plan | None = None
    note: str = ""

    @model_validator(mode="after")
    def _judged(self) -> "Claim":
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict is '{self.verdict}'; expected one of {', '.join(VERDICTS)}")
        measured = bool(self.figure) or self.difference is not None
        if measured == (self.verdict == "open"):
            raise ValueError("a row is either measured, with a verdict, or open with none")
        if not measured and self.plan is None:
            raise ValueError("an open row says in its plan what it could see")
        return self

    def measured(self) -> str:
        if self.difference is not None:
            return str(self.difference)
        return self.figure or f"not measured yet; {self.power()}"

    def power(self) -> str:
        """How large a difference could be seen."""
        if self.plan is not None:
            return (
                f"{self.plan.what}: differences from {self.plan.visible():.1f} "
                f"{self.plan.unit} on would be seen"
            )
        if self.difference is None:
            return "a figure, not a difference"
        half = self.difference.interval()[1]
        unit = "%" if self.difference.relative else self.difference.unit
        return (
            f"{self.difference.what}: differences from {half:.3g} {unit}".rstrip() + " on are seen"
        )


def _quantile(freedom: float) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, min(freedom, 1e9)))


def read_claims(path: Path = CLAIMS) -> dict[str, Claim]:
    """The rows by name. Raises :class:`InputError` for one that is not as it should be."""
    rows: dict[str, Claim] = {}
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        name = entry.get("name", "?")
        try:
            row = Claim.model_validate(entry)
        except ValueError as error:
            raise InputError(f"{path.name}: {name}: {error}") from error
        if name in rows:
            raise InputError(f"{path.name}: {name} is there twice")
        rows[name] = row
    return rows


def table(rows: dict[str, Claim]) -> str:
    """The table of docs/claims.md."""
    lines = ["| claim | source | figure, 95 % interval | verdict | `claims.py` | minutes |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows.values():
        paper, _, page = row.source.partition("; ")
        source = f"{paper}: [{page.removesuffix('.md')}]({page})" if page else paper
        verdict = f"**{row.verdict}**" if row.verdict != "open" else "not measured yet"
        found = row.measured().removeprefix("not measured yet; ")
        note = f"; {row.note}" if row.note else ""
        cells = [row.claim, source, found + note, verdict, f"`{row.name}`", f"{row.minutes:g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page(text: str, rows: dict[str, Claim]) -> str:
    """The page with the table in its place."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise InputError(f"{PAGE} has no place for the table: '{BEGIN}' ... '{END}'")
    return f"{before}{BEGIN}\n\n{table(rows)}\n{END}{after}"


def filled(row: Claim, out: Path, given: dict[str, str]) -> str:
    """The command with its files in place."""
    files = {"out": shlex.quote(str(out)), **{k: shlex.quote(v) for k, v in given.items()}}
    wanted = set(re.findall(r"{([a-z]+)}", row.command))
    if missing := sorted(wanted - set(files)):
        raise InputError(f"{row.name} needs a file: --set {missing[0]}=PATH")
    command = row.command
    for name in wanted:
        command = command.replace(f"{{{name}}}", files[name])
    return command


def given_files(entries: list[str]) -> dict[str, str]:
    """What ``--set NAME=PATH`` gives; a path that exists is made absolute, since commands run in
    the repository's folder."""
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name and equals and value):
            raise InputError(f"--set {entry}: expected NAME=PATH")
        path = Path(value).expanduser()
        found[name] = str(path.resolve()) if path.exists() else value
    return found


def run(row: Claim, out: Path, given: dict[str, str]) -> int:
    """Run a row's command, or show what it gave when it was finished; the exit status."""
    done = out / "done.json"
    if done.is_file():
        found = read_json(done)
        print(found["output"], end="")
        print(f"(measured before, in {found['minutes']:.1f} minutes; remove {out} to repeat it)")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    command = filled(row, out.resolve(), given)
    print(f"{row.claim} ({row.source})")
    print(f"Power: {row.power()}.")
    print(f"About {row.minutes:g} minutes on one quiet core. {command}", flush=True)
    paths = [str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    inside = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    inside["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    begun, output = time.perf_counter(), ""
    with subprocess.Popen(
        command, shell=True, cwd=HERE.parent, env=inside, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            output += line
    minutes = (time.perf_counter() - begun) / 60
    if process.returncode == 0:
        write_json(done, {"command": command, "minutes": minutes, "output": output})
    print(json.dumps({"name": row.name, "minutes": round(minutes, 1), "stands": row.measured()}))
    return process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="a row; without one, all are listed")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--write", action="store_true", help="write the table into docs/claims.md")
    args = parser.parse_args()
    rows = read_claims()
    if args.write:
        write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), rows))
    elif args.name is None:
        for row in rows.values():
            print(f"{row.name:26} {row.verdict:20} {row.minutes:6g} min  {row.claim}")
    elif args.name not in rows:
        raise InputError(f"no claim '{args.name}'; there are {', '.join(rows)}")
    else:
        sys.exit(run(rows[args.name], args.out / args.name, given_files(args.set)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
