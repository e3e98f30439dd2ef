"""A file of requests, answered into a folder: in shards, each whole or absent.

The input is JSON lines: ``{"text"}`` for embeddings and classes, ``{"history", "candidates"}`` for
ranks, ``{"prompt"}`` and what ``/v1/completions`` takes beside it for texts. All of it is checked
before the first line is answered. A run that was killed goes on with the shards that are missing;
a run with another input, model or size of shard in the same folder is refused, and one whose
model's or adapters' files are others now.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geodapt.errors import InputError
from geodapt.files import read_json, sweep, write_json, write_text
from geodapt.locks import only_user
from geodapt.paths import given, regular
from geodapt.progress import bar
from geodapt.serve.generating import GenerateRow, Generating
from geodapt.serve.requested_gate import BASE
from geodapt.serve.scoring import Scoring

Task = Literal["embed", "classify", "rank", "generate"]
Answers = list[dict[str, Any]]
Answer = Callable[[list[Any], list[int]], Answers]
"""The answers to some lines, whose numbers come second."""
Contents = Callable[[Collection[str]], dict[str, str | None]]
"""Digests of the models' files and of those of the adapters named."""
JOB = "job.json"
"""What a folder's shards were made from."""


class TextRow(BaseModel):
    """A line for embeddings and classes."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1)


class RankRow(BaseModel):
    """A line for ranks."""

    model_config = ConfigDict(extra="forbid")
    history: list[str]
    """Oldest first."""
    candidates: list[str] = Field(min_length=1)


ROWS: dict[Task, type[BaseModel]] = {
    "embed": TextRow,
    "classify": TextRow,
    "rank": RankRow,
    "generate": GenerateRow,
}


@dataclass(frozen=True)
class Shard:
    """Some lines of a file that follow each other."""

    number: int
    place: int
    """Bytes before its first line."""
    line: int
    """The number of its first line."""
    count: int
    """Lines that hold something."""

    @property
    def name(self) -> str:
        """The file of its answers."""
        return f"part-{self.number:05d}.jsonl"


@dataclass(frozen=True)
class ScoringJob:
    """A file that was checked, and the folder for its answers."""

    path: Path
    out: Path
    task: Task
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """Lines to answer."""
        return sum(shard.count for shard in self.shards)

    @property
    def missing(self) -> list[Shard]:
        """Shards without answers."""
        return [shard for shard in self.shards if not (self.out / shard.name).exists()]

    @property
    def failed(self) -> int:
        """Answers that are there and hold an error; only texts can."""
        if self.task != "generate":
            return 0
        written = (self.out / shard.name for shard in self.shards)
        return sum(map(_errors_in, filter(Path.exists, written)))

    def answer(self, shard: Shard, answer: Answer) -> None:
        """Write a shard's answers."""
        kind = ROWS[self.task]
        lines = list(islice(_lines(self.path, shard.place, shard.line), shard.count))
        rows = [_row(self.path, number, line, kind) for number, line, _ in lines]
        answers = answer(rows, [number for number, _, _ in lines])
        written = (json.dumps(a, ensure_ascii=False, allow_nan=False) for a in answers)
        write_text(self.out / shard.name, "".join(f"{line}\n" for line in written))


@contextmanager
def claimed(
    source: Path,
    out: Path,
    task: Task,
    model: str,
    shard: int,
    contents: Contents = lambda adapters: {},
) -> Iterator[ScoringJob]:
    """The job of answering a file into a folder, which nobody else uses until the block ends.

    Raises :class:`InputError` for a line that is no such request, and for a folder that holds
    another job's answers, or answers made from other ``contents``.
    """
    path = regular(given(source))
    shards, digest, adapters = _checked(path, ROWS[task], shard)
    out = given(out)
    job = ScoringJob(path, out, task, shards)
    with only_user(out):
        told = {"sha256": digest, "lines": job.count, "task": task, "model": model, "shard": shard}
        _claim(out, told | {"contents": contents(adapters)})
        sweep(out)
        yield job


def score_file(
    source: Path,
    out: Path,
    model: Scoring | Generating,
    task: Task,
    name: str,
    shard: int = 1000,
    contents: Contents = lambda adapters: {},
) -> tuple[int, int]:
    """Answer every line of a file by a model that is called ``name``, and has such contents.

    Gives how many lines there are, and how many of all answers are errors. Raises
    :class:`InputError` as :func:`claimed` does.
    """
    answer = answerer(model, task)
    with claimed(source, out, task, name, shard, contents) as job:
        with bar(f"scoring {job.path.name}", job.count) as progress:
            missing = set(job.missing)
            for part in job.shards:
                if part in missing:
                    job.answer(part, answer)
                progress.advance(part.count)
        return job.count, job.failed


def answerer(model: Scoring | Generating, task: Task) -> Answer:
    """What answers the lines of a task."""
    if isinstance(model, Generating):
        return model.completed
    scoring = model

    def embed(rows: list[TextRow], numbers: list[int]) -> Answers:
        found = scoring.embedded([row.text for row in rows]).result()
        pairs = zip(found.vectors, found.radii, strict=True)
        return [{"embedding": vector, "radius": radius} for vector, radius in pairs]

    def classify(rows: list[TextRow], numbers: list[int]) -> Answers:
        found = scoring.classified([row.text for row in rows], None).result()
        return [{"label": max(s, key=lambda n: s[n]), "scores": s} for s in found]

    def rank(rows: list[RankRow], numbers: list[int]) -> Answers:
        return [{"scores": scoring.ranked(r.history, r.candidates).result()} for r in rows]

    answers: dict[str, Answer] = {"embed": embed, "classify": classify, "rank": rank}
    return answers[task]


def _checked(
    path: Path, kind: type[BaseModel], size: int
) -> tuple[tuple[Shard, ...], str, set[str]]:
    """A file's shards, the digest of its lines and their numbers, and the adapters that they name,
    once every line was read."""
    shards: list[Shard] = []
    adapters: set[str] = set()
    digest, begin, count = hashlib.sha256(), (0, 0), 0
    for number, line, place in _lines(path):
        digest.update(b"%d:" % number + line)  # a number may be a seed
        row = _row(path, number, line, kind)
        if isinstance(row, GenerateRow):
            with suppress(InputError):  # which is its answer
                adapters.update(row.requested({BASE}).weights)
        if count == 0:
            begin = place, number
        count += 1
        if count == size:
            shards.append(Shard(len(shards), *begin, count))
            count = 0
    if count:
        shards.append(Shard(len(shards), *begin, count))
    if not shards:
        raise InputError(f"{path} holds no line to score")
    return tuple(shards), digest.hexdigest(), adapters


def _claim(out: Path, job: dict[str, Any]) -> None:
    if (out / JOB).exists():
        found = read_json(out / JOB)
        found = found if isinstance(found, dict) else {}
        if unknown := [name for name in job if name not in found]:
            raise InputError(
                f"{out} was begun by another version of geodapt, which did not write down its "
                f"{', '.join(unknown)} ({out / JOB}); give another folder"
            )
        differing = [name for name in job if found[name] != job[name]]
        now, then = job["contents"], found["contents"]
        if differing == ["contents"] and isinstance(then, dict):
            changed = next(name for name in {**now, **then} if now.get(name) != then.get(name))
            raise InputError(
                f"{changed} is not what {out} was begun with, and the answers would be of two "
                "versions; give another folder, or bring the old files back"
            )
        if differing:
            raise InputError(
                f"{out} holds the answers of another job, whose {', '.join(differing)} differs "
                f"(see {out / JOB}); give another folder"
            )
        return
    if any(out.glob("part-*.jsonl")):
        raise InputError(f"{out} holds answers of nobody knows what; give another folder")
    write_json(out / JOB, job)


def _errors_in(path: Path) -> int:
    with path.open("rb") as file:
        return sum(line.startswith(b'{"error":') for line in file)


def _lines(path: Path, place: int = 0, first: int = 1) -> Iterator[tuple[int, bytes, int]]:
    """Lines that hold something, from a place on: number, content, and bytes before."""
    with path.open("rb") as file:
        file.seek(place)
        for number, line in enumerate(file, first):
            if line.strip():
                yield number, line, place
            place += len(line)


def _row(path: Path, number: int, line: bytes, kind: type[BaseModel]) -> Any:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{path}, line {number}: {said}") from None
