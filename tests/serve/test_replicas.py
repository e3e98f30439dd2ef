"""Replicas by Ray answer as one server does, and one that dies takes no request with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import SOURCE
from tests.serve.isolated import isolation


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["replicas_inside", "nodes_inside"])
def test_replicas_answer_as_one_and_survive_one(tmp_path, inside):
    """Two on one machine, and on machines of a cluster, which have loopback addresses here."""
    pytest.importorskip("ray")
    done = subprocess.run(
        [*isolation(), sys.executable, "-m", f"tests.serve.{inside}", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_replicas_without_a_shared_store_are_refused(geodapt):
    pytest.importorskip("ray")
    done = geodapt("serve", "--ray", "--embed", "minilm", "--port", "0")
    assert (done.code, "--store" in done.err) == (2, True), done.err
