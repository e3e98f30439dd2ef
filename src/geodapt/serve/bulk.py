"""A file of requests for scores, answered into a folder: in shards, each whole or absent.

The input is JSON lines: ``{"text"}`` for embeddings and classes, ``{"history", "candidates"}`` for
ranks. All of it is checked before the first line is answered. A run that was killed goes on after
its last whole shard; a run with another input, model or size of shard in the same folder is
refused.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geodapt.errors import InputError
from geodapt.files import read_json, sweep, write_json, write_text
from geodapt.locks import only_user
from geodapt.paths import given, regular
from geodapt.progress import bar
from geodapt.serve.scoring import Scoring

Task = Literal["embed", "classify", "rank"]
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


def score_file(
    source: Path, out: Path, scoring: Scoring, task: Task, model: str, shard: int = 1000
) -> int:
    """Answer every line of a file; how many there are. Shard n is ``out/part-n.jsonl``.

    Raises :class:`InputError` for a line that is no such request, and for a folder that holds
    another job's answers.
    """
    path = regular(given(source))
    kind = RankRow if task == "rank" else TextRow
    count, digest = 0, hashlib.sha256()
    for number, line in _lines(path):
        digest.update(line)
        _row(path, number, line, kind)
        count += 1
    if not count:
        raise InputError(f"{path} holds no line to score")
    job = {"sha256": digest.hexdigest(), "lines": count, "task": task, "model": model}
    job |= {"shard": shard}
    out = given(out)
    with only_user(out):
        _claim(out, job)
        sweep(out)
        answer = _answerer(scoring, task)
        with bar(f"scoring {path.name}", count) as progress:
            lines = _lines(path)
            for part in range(0, count, shard):
                rows = [_row(path, n, line, kind) for n, line in islice(lines, shard)]
                target = out / f"part-{part // shard:05d}.jsonl"
                if not target.exists():
                    answers = answer(rows)
                    written = (json.dumps(a, ensure_ascii=False, allow_nan=False) for a in answers)
                    write_text(target, "".join(f"{line}\n" for line in written))
                progress.advance(len(rows))
    return count


def _answerer(scoring: Scoring, task: Task) -> Callable[[list[Any]], list[dict[str, Any]]]:
    def embed(rows: list[TextRow]) -> list[dict[str, Any]]:
        found = scoring.embedded([row.text for row in rows]).result()
        pairs = zip(found.vectors, found.radii, strict=True)
        return [{"embedding": vector, "radius": radius} for vector, radius in pairs]

    def classify(rows: list[TextRow]) -> list[dict[str, Any]]:
        found = scoring.classified([row.text for row in rows], None).result()
        return [{"label": max(s, key=lambda n: s[n]), "scores": s} for s in found]

    def rank(rows: list[RankRow]) -> list[dict[str, Any]]:
        return [{"scores": scoring.ranked(r.history, r.candidates).result()} for r in rows]

    answers: dict[Task, Callable[[list[Any]], list[dict[str, Any]]]]
    answers = {"embed": embed, "classify": classify, "rank": rank}
    return answers[task]


def _claim(out: Path, job: dict[str, Any]) -> None:
    if (out / JOB).exists():
        found = read_json(out / JOB)
        if found != job:
            raise InputError(
                f"{out} holds the answers of another job (see {out / JOB}); give another folder"
            )
        return
    if any(out.glob("part-*.jsonl")):
        raise InputError(f"{out} holds answers of nobody knows what; give another folder")
    write_json(out / JOB, job)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _row(path: Path, number: int, line: bytes, kind: type[TextRow] | type[RankRow]) -> Any:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{path}, line {number}: {said}") from None
