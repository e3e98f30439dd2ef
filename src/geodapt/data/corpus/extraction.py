"""The English documentation in files: docstrings of Python files, prose of text files.

Run as a script in an interpreter of its own, ``python extraction.py FILES.json OUT.json``: several
packages are then read side by side. Only the standard library is imported, so that it starts at
once. Python files are parsed, never run.

FILES.json is a list of paths. OUT.json has a list of texts for each file with any: its docstrings
in order, or the one text that it is. While it works it prints ``done/total``, one line per file.
"""

import ast
import gc
import inspect
import json
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

LARGEST = 4_000_000  # bytes; longer files are tables of data, whatever their suffix
FEWEST_WORDS = 8  # "Initialize self." says nothing

# The words that stand between others in every English text.
COMMON = frozenset(
    """
    a all also an and any are as at be been but by can each for from has have how if in into is it
    its may more must no not of on one only or other should so some such than that the their then
    there these they this to up use used using was were when where which will with you your
    """.split()  # noqa: SIM905 - a list of seventy lines says no more
)
ENGLISH = 0.12
"""Least share of COMMON words. Prose has a third and more, lists of parameters a fifth."""
LETTERS = 0.7
"""Least share of letters among the characters that are not blank; tables and code have less."""

_WORD = re.compile(r"[^\W\d_]+")
_ROLE = re.compile(r":[\w:+-]+:`[~!]?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :class:`~a.b`, :doc:`x <y>`
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")  # [text](address)
_RULE = re.compile(r"[\W_]+")  # a line without letters and digits: underlines, frames
_TAG = re.compile(r"</?\w[^>\n]*>|<!--.*?-->", re.DOTALL)
_FENCED = re.compile(r"^([ \t]*)(```|~~~).*?^\1\2[ \t]*$", re.DOTALL | re.MULTILINE)
_DOCTEST = re.compile(r"^[ \t]*>>>.*(?:\n(?![ \t]*$).*)*", re.MULTILINE)  # up to a blank line
_DIRECTIVE = re.compile(r"^[ \t]*\.\. (?:[\w|-]|_).*$", re.MULTILINE)  # .. image::, .. _target:
_BLANK = re.compile(r"\n{3,}")


def clean(text: str) -> str:
    """Prose without markup, examples, rules and stray blanks; paragraphs stay apart."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").expandtabs())
    text = _DOCTEST.sub("", _FENCED.sub("", text))
    text = _DIRECTIVE.sub("", _ROLE.sub(r"\1", text))  # addresses in roles look like tags
    text = _LINK.sub(r"\1", _TAG.sub("", text)).replace("``", "`")
    lines = (line.rstrip() for line in text.split("\n"))
    text = "\n".join("" if line and _RULE.fullmatch(line) else line for line in lines)
    text = _BLANK.sub("\n\n", text).strip()
    return text.removesuffix("\nExamples").rstrip()  # which were code alone


def is_english(text: str) -> bool:
    """Whether a text is English prose, judged by its common words and its share of letters."""
    words = _WORD.findall(text)
    if len(words) < FEWEST_WORDS:
        return False
    common = sum(word.lower() in COMMON for word in words)
    letters = sum(map(len, words))
    return common >= ENGLISH * len(words) and letters >= LETTERS * len("".join(text.split()))


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The name and the docstring of a module (its name is empty), its classes and functions."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node, clean=False):
                yield name, inspect.cleandoc(text)
            if not isinstance(node, ast.Module | ast.ClassDef):
                continue  # what is defined in a function is not documentation
        below = [
            (f"{name}.{child.name}".lstrip("."), child)
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            else (name, child)
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.stmt)
        ]
        waiting += reversed(below)


def of_python(content: bytes) -> list[str]:
    """The docstrings of a Python file that are English, each headed by its name."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # a fixture for another Python, or one that nests too deep for this one
    found = []
    for name, text in docstrings(tree):
        text = clean(text)
        if is_english(text):
            found.append(f"{name}\n\n{text}" if name else text)
    return found


def of_prose(content: bytes, metadata: bool) -> list[str]:
    """The text of a documentation file; of a package's METADATA, its long description."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return []
    if metadata:
        message = message_from_string(text)
        text = str(message.get_payload()) or message.get("Description", "")
    text = clean(text)
    return [text] if is_english(text) else []


def read(path: Path) -> list[str]:
    """The English documentation that a file holds; nothing for one that cannot be read."""
    try:
        if path.stat().st_size > LARGEST:
            return []
        content = path.read_bytes()
    except OSError:
        return []
    if path.suffix == ".py":
        return of_python(content)
    return of_prose(content, path.name in ("METADATA", "PKG-INFO"))


def extract(files: list[str]) -> list[list[str]]:
    """The texts of each file that has any."""
    found = []
    for done, file in enumerate(files, 1):
        print(f"{done}/{len(files)}", flush=True)
        if texts := read(Path(file)):
            found.append(texts)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(20_000)  # sums of a thousand terms nest as deep
    gc.disable()  # syntax trees have no cycles, and looking for them takes a third of the time
    files = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(extract(files)), encoding="utf-8")
