"""Questions with known answers, asked through EleutherAI's lm-evaluation-harness."""

import contextlib
import io
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from geodapt.errors import InputError, reason_of
from geodapt.extras import require_lm_eval
from geodapt.paths import given
from geodapt.progress import bar

FIGURES = {"acc": "accuracy", "acc_norm": "accuracy_norm"}
"""lm-eval's names and ours."""


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    few_shot: int | None = None,
    limit: int | None = None,
    copies: str | Path | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """``accuracy`` and, where the task has it, ``accuracy_norm``: by the likelihood per byte.

    With ``copies`` a data set is read from that folder, where it lies under its hub name, in files
    that ``datasets.load_dataset`` takes: a download of its repository, or one JSONL file per split.
    Raises :class:`InputError` for an unknown task, and for data that is neither there nor on a hub
    that can be reached.
    """
    require_lm_eval()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if not manager.match_tasks([task]):
        raise InputError(
            f"lm-eval has no task '{task}'; mmlu, arc_challenge, openbookqa, commonsense_qa and "
            "hellaswag are some, and `lm-eval ls tasks` lists all"
        )
    folder = given(copies or ".")
    if not folder.is_dir():
        raise InputError(f"copies '{copies}' is no folder; give the one with the data sets' copies")
    # datasets looks for a folder of that name in the working directory before it asks the hub.
    with bar(f"asking {task}"), contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        try:
            found = simple_evaluate(
                model=HFLM(model, backend="causal", tokenizer=tokenizer, batch_size=batch_size),
                tasks=[task],
                num_fewshot=few_shot,
                limit=limit,
                task_manager=manager,
                log_samples=False,
                bootstrap_iters=0,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except (OSError, ValueError) as error:  # what datasets and the hub raise
            raise InputError(
                f"task '{task}' could not be asked: {reason_of(error)}. Its data "
                "comes from the hub, or from copies=FOLDER with FOLDER/OWNER/NAME in it"
            ) from error
    return task_figures(found, task)


def task_figures(found: dict[str, Any], task: str) -> dict[str, Any]:
    """The figures of a task, or of a group of tasks such as mmlu, in lm-eval's results."""
    results = (found.get("groups") or {}).get(task) or found["results"][task]
    return {
        ours: results[f"{theirs},none"]
        for theirs, ours in FIGURES.items()
        if f"{theirs},none" in results
    } | {"questions": sum(n["effective"] for n in found["n-samples"].values())}
