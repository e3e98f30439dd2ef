"""Names from recipes and data as places on disk, and paths that users give."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from geodapt.errors import InputError, visible
from geodapt.files import atomic_folder, write_bytes
from geodapt.paths import child, given, page_to_write, regular

HOSTILE = [
    "..", ".", "../../outside", "/etc", "/", "a/../../b", "a/b", "\\\\host\\share", "C:\\x", "C:",
    "...", " ", "a ", ".hidden", ".model.0123abcd.unfinished", "a\0b", "a\nb", "\x1b]0;x\x07",
    "%2E%2E", "%", "con|", "~root", "*?", "\u202egnp", "-rf", "CON.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_never_leads_out_of_its_folder(tmp_path, name):
    place = child(tmp_path, name)
    assert place.parent == tmp_path
    assert Path(os.path.realpath(place)).parent == Path(os.path.realpath(tmp_path))
    place.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    assert not place.name.startswith(".")
    assert place.name.isprintable()


@settings(deadline=None)
@drawn(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_different_names_have_different_places(one, other):
    try:
        places = [child(Path("folder"), name) for name in (one, other)]
    except InputError:  # too long, or no text
        return
    assert (places[0] == places[1]) == (one == other)
    assert all(len(place.parts) == 2 and place.parts[0] == "folder" for place in places)


@pytest.mark.parametrize("name", ["toys", "Children's", "Sci-Fi", "Tools & Home", "été", "v1.2"])
def test_a_usual_name_stands_as_it_is(name):
    assert child(Path("folder"), name) == Path("folder") / name


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 101, "/" * 70, "\ud800", "a\udfff"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(InputError, match="name"):
        child(Path("folder"), name)


# Paths


def test_a_path_that_is_given_need_not_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given("~/new/file") == tmp_path / "new" / "file"
    (tmp_path / "file").write_text("")
    assert given(tmp_path / "file" / "below") == tmp_path / "file" / "below"


@pytest.mark.parametrize(
    "path", ["", "~nosuchuser/x", "x" * 300, "d/" * 2000, "d/" * 150, "a\0b", "\ud800", "a/" * 3000]
)
def test_a_path_that_no_file_can_have(path):
    with pytest.raises(InputError, match="path"):
        given(path)


def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "pointer").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 5\n"
    )
    for name, word in [
        ("pipe", "pipe"), ("link", "pipe"), (".", "folder"), ("no", "not exist"), ("pointer", "LFS")
    ]:  # fmt: skip
        with pytest.raises(InputError, match=word):
            regular(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(InputError, match="pipe or device"):
            regular(tmp_path / "socket")
    (tmp_path / "file").write_text("x")
    assert regular(tmp_path / "file") == tmp_path / "file"


# What is written


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(tmp_path / "pipe", b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    write_bytes(tmp_path / "null", b"content")
    assert (tmp_path / "null").is_symlink()
    assert Path("/dev/null").is_char_device()


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("file", "new"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    (tmp_path / "there" / "file").write_bytes(b"old")
    for name in ("file", "new"):
        write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "there" / name).read_bytes() == b"content"
    (tmp_path / "folder").symlink_to(tmp_path / "there" / "folder")
    for _ in range(2):
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("x")
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "there" / "folder" / "file").read_text() == "x"
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"file", "new", "folder"}


def test_a_folder_that_holds_anything_else_is_not_replaced(tmp_path):
    victim = tmp_path / "victim"
    (victim / "precious").mkdir(parents=True)
    (victim / "precious" / "thesis.txt").write_text("years of work")
    (victim / "model.safetensors").write_text("")
    with pytest.raises(InputError, match=r"would delete 'precious"), atomic_folder(victim) as new:
        (new / "model.safetensors").write_text("new")
    assert (victim / "precious" / "thesis.txt").read_text() == "years of work"
    assert (victim / "model.safetensors").read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


# What is shown


def test_what_a_terminal_would_obey_is_written_out():
    assert visible("a\x1b]0;title\x07b\x9b31m") == "a\\x1b]0;title\\x07b\\x9b31m"
    assert visible("two\nlines\tof é 中 text") == "two\nlines\tof é 中 text"
    assert visible("\u202egnp.exe\ud800") == "\\u202egnp.exe\\ud800"
    assert str(InputError("unknown key 'x\x1b[2J'")) == "unknown key 'x\\x1b[2J'"


def test_a_page_is_refused_before_the_work(tmp_path):
    (tmp_path / "note.txt").write_text("")
    assert page_to_write(tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    assert page_to_write(tmp_path / "note.txt") == tmp_path / "note.txt"  # replaced
    assert page_to_write(os.devnull) == Path(os.devnull)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"is a folder; give a file in it, such as .*page.html"):
        page_to_write(tmp_path)
    with pytest.raises(InputError, match=r"note.txt is a file; give another place"):
        page_to_write(tmp_path / "note.txt" / "page.html")
    with pytest.raises(InputError, match="no-such-user"):
        page_to_write("~no-such-user/page.html")
