"""How commands end: full disks, missing rights, signals, and names that would steer a terminal."""

import errno
import io
import os
import re
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import typer
from rich.table import Table
from rich.text import Text

from geodapt.cli import main
from geodapt.cli.endings import Terminated, ending
from geodapt.console import Console
from geodapt.errors import InputError
from tests.held import wait_until_held


def ended(capsys, error) -> tuple[int, str]:
    with pytest.raises(typer.Exit) as stopped, ending():
        raise error
    return stopped.value.exit_code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", b"a"), "a: Permission denied"),
        (FileExistsError(errno.EEXIST, "File exists", "a"), "a: File exists"),
        (OSError("the hub is away\nmore"), "the hub is away"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "is the disk full?"),
        (InputError("unknown key 'x\x1b]0;pwned\x07'"), "unknown key 'x\\x1b]0;pwned\\x07'"),
        (
            OSError(errno.ENOENT, "No such file", "a\x1b[2Jb\udcff"),
            "a\\x1b[2Jb\\udcff: No such file",
        ),
    ],
)
def test_what_can_be_mended_is_one_line(capsys, error, said):
    code, err = ended(capsys, error)
    assert code == 2
    assert err.startswith("error: ")
    assert err.rstrip().endswith(said)
    assert err.count("\n") == 1


@pytest.mark.parametrize("made", [ModuleNotFoundError, RuntimeError, InputError, OSError])
def test_a_stop_of_which_a_library_makes_another_error_is_a_stop(capsys, made):
    error = made("Could not import module 'AutoProcessor'")
    error.add_note("nothing was written")

    def importing():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    with pytest.raises(typer.Exit) as stopped, ending():
        importing()
    assert stopped.value.exit_code == 130
    assert capsys.readouterr().err == "\nstopped; nothing was written\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stop_before_the_command_is_imported_is_one_line(capsys, monkeypatch):
    class Stopping:
        def find_spec(self, name, *_):
            if name == "geodapt.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "geodapt.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Stopping(), *sys.meta_path])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\nstopped\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), BrokenPipeError()])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)), ending():
        raise error


def test_an_early_end_of_file_is_no_abort():
    with pytest.raises(RuntimeError, match="ended too early"), ending():
        raise EOFError


def test_signals_end_with_their_status_and_how_to_go_on(capsys):
    interrupted = KeyboardInterrupt()
    interrupted.add_note("continue with: geodapt run")
    assert ended(capsys, interrupted) == (130, "\nstopped; continue with: geodapt run\n")
    assert ended(capsys, Terminated()) == (143, "\nstopped\n")
    before = signal.getsignal(signal.SIGTERM)

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with pytest.raises(typer.Exit) as stopped, ending():
        terminate()
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_says_how_to_go_on(tiny, start, stop):
    process = start("run", "tiny.yaml", "--out", "out", place="log:one:1")
    wait_until_held(process)
    process.send_signal(stop)
    _, err = process.communicate(timeout=300)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[stop]
    assert err.splitlines()[-1] == (
        "stopped; out is usable; continue with: geodapt run out/config.yaml --out out --resume"
    )
    assert not Path("out/work/.holder.json").exists()


def stops_after(kept):
    """Work that is stopped once it has kept something, and before."""

    def work(*_, **__):
        if kept is not None:
            Path(kept).mkdir()
        raise KeyboardInterrupt

    return work


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("command", "kept", "places"),
    [
        (
            "merge ./a ./b --search texts.jsonl --out best",
            "best.search",
            ["geodapt.adapters.search_on_texts", "geodapt.adapters.Adapter.from_pretrained"],
        ),
        (
            "score texts.jsonl --embed minilm --out vectors",
            "vectors",
            ["geodapt.serve.bulk.score_file", "geodapt.serve.loading.load_for_bulk"],
        ),
    ],
)
def test_work_that_the_same_command_continues_says_so(
    geodapt, monkeypatch, tmp_path, command, kept, places, begun
):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "texts.jsonl").write_text('{"text": "a train"}\n')
    monkeypatch.setattr(places[0], stops_after(kept if begun else None))
    monkeypatch.setattr(places[1], lambda *_: None)
    done = geodapt(*command.split())
    said = f"{kept} is kept; the same command continues" if begun else "nothing was written"
    assert done.code == 130
    told = done.err.splitlines()[-1]
    assert told.startswith("stopped; ")
    assert told.endswith(said)


def test_a_full_disk_is_one_line(tiny, geodapt, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "out/metrics.jsonl")

    monkeypatch.setattr("geodapt.runs.RunFolder.log", full)
    done = geodapt("run", "tiny.yaml", "--out", "out")
    assert done.code == 2
    assert done.err.splitlines()[-2:] == [
        "error: out/metrics.jsonl: No space left on device",
        "out is usable; continue with: geodapt run out/config.yaml --out out --resume",
    ]


HOSTILE = "a\x1b]0;pwned\x07b\x9b31m\u202ec"


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_show_control_characters(terminal):
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    out = io.StringIO()
    with redirect_stdout(out):
        console = Console(force_terminal=terminal, width=200)
        console.print(table)
        console.print(HOSTILE, markup=False, highlight=False)
        console.print(Text(HOSTILE, "bold"))
    written = out.getvalue()
    for control in ("\x1b]", "\x07", "\x9b", "\u202e"):
        assert control not in written
    assert written.count("\\x1b]0;pwned") == 6


def test_only_one_console_prints():
    source = Path(sys.modules["geodapt"].__file__).parent
    found = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if re.search(
            r"from rich.console import .*\bConsole\b|from rich import .*(console|print)",
            path.read_text(),
        )
    ]
    assert found == ["console.py"]
