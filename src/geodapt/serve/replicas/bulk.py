"""A file of requests, answered by several processes, of one machine or many, that Ray runs."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.errors import InputError
from geodapt.progress import bar
from geodapt.serve.bulk import ScoringJob, Shard, Task, answerer, claimed
from geodapt.serve.contents import contents_of
from geodapt.serve.loading import load_for_bulk
from geodapt.serve.replicas.cluster import Replicas, absolute, joined, shared_out
from geodapt.serve.served import Served

MOST_BLOCKS = 1000
"""Pieces that Ray Data hands out; each holds the numbers of some shards, nothing else."""


class ShardAnswerer:
    """Loads the models once in its process, then answers shards of the file into the folder.

    What the user can mend is a result, as Ray would try again and show a traceback.
    """

    def __init__(self, served: Served, job: ScoringJob, cores: int) -> None:
        torch.set_num_threads(cores)
        self._job, self._refused = job, ""
        try:
            self._answer = answerer(load_for_bulk(served), job.task)
        except InputError as error:
            self._refused = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Shards by their numbers; how many lines each has, and why they are not answered."""
        shards: list[Shard] = [self._job.shards[int(number)] for number in batch["shard"]]
        refused = self._refused
        try:
            for shard in shards if not refused else ():
                self._job.answer(shard, self._answer)
        except (InputError, OSError) as error:
            refused = str(error)
        return {"count": [s.count for s in shards], "refused": [refused] * len(shards)}


def score_file_by_ray(
    source: Path,
    out: Path,
    served: Served,
    task: Task,
    name: str,
    shard: int,
    wanted: Replicas,
) -> tuple[int, int]:
    """As :func:`geodapt.serve.bulk.score_file`, with the same files, by several processes.

    On several machines the file, the models and the folder must be on storage that all share.
    """
    cores, gpus = shared_out(wanted)
    with claimed(source, out, task, name, shard, partial(contents_of, served)) as job:
        missing = job.missing
        job = ScoringJob(job.path.absolute(), job.out.absolute(), job.task, job.shards)
        with bar(f"scoring {job.path.name}", job.count) as progress:
            progress.advance(job.count - sum(shard.count for shard in missing))
            if not missing:
                return job.count, job.failed
            with joined(wanted.address, cores * wanted.count, gpus):
                import ray

                context = ray.data.DataContext.get_current()
                context.enable_progress_bars = False
                context.print_on_execution_start = False
                logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # which shows tracebacks
                numbers = [{"shard": shard.number} for shard in missing]
                blocks = min(len(numbers), MOST_BLOCKS)
                done = ray.data.from_items(numbers, override_num_blocks=blocks).map_batches(
                    ShardAnswerer,
                    fn_constructor_args=(absolute(served), job, cores),
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=min(wanted.count, len(numbers))),
                    num_cpus=cores,
                    num_gpus=1 if gpus else None,
                )
                try:
                    for row in done.iter_rows():
                        if row["refused"]:
                            raise InputError(row["refused"])
                        progress.advance(row["count"])
                except ray.exceptions.RayError as error:
                    raise InputError(f"Ray: {_reason(error)}") from error
        return job.count, job.failed


def _reason(error: BaseException) -> str:
    """What a worker said last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
