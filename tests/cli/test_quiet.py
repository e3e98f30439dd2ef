"""What a command keeps to itself, and what `--debug` shows."""

import os
import subprocess
import sys

import pytest

from geodapt.cli.quiet import leave_foreign_backend


def said(code: str, debug: bool) -> str:
    """Standard error of a block under `quiet` in a fresh process."""
    block = f"from geodapt.cli.quiet import quiet\nwith quiet({debug}):\n" + "".join(
        f"    {line}\n" for line in code.splitlines()
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", block], env=environment, capture_output=True, text=True, check=True
    ).stderr


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["torchao", "lm_eval.models.huggingface"])
@pytest.mark.parametrize("debug", [False, True])
def test_warnings_and_other_libraries_logs_show_only_with_debug(debug, logger):
    heard = said(
        "import logging, warnings\n"
        "warnings.warn('a warning')\n"
        f"logging.getLogger('{logger}').warning('a log line')",
        debug,
    )
    assert ("a warning" in heard, "a log line" in heard) == (debug, debug)


@pytest.mark.slow
def test_what_was_left_out_of_the_users_own_is_said():
    heard = said(
        "import warnings\n"
        "from geodapt.errors import InputWarning\n"
        "warnings.warn('the decoder is left out', InputWarning)",
        debug=False,
    )
    assert heard == "note: the decoder is left out\n"


@pytest.mark.slow
def test_loading_a_base_and_the_heaviest_libraries_says_nothing():
    assert said("import torchao, datasets\nfrom geodapt.models import load_base\n"
                "load_base('minilm')", debug=False) == ""  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "kept"),
    [
        ("module://not_installed_here.backend_inline", False),
        ("module://json.decoder", True),
        ("agg", True),
    ],
)
def test_a_notebooks_backend_that_is_not_installed_is_left_out(monkeypatch, backend, kept):
    monkeypatch.setenv("MPLBACKEND", backend)
    leave_foreign_backend()
    assert os.environ.get("MPLBACKEND") == (backend if kept else None)
