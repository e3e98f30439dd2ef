"""Published JSON of annotations: what is needed of it, typed.

Of a file only the fields of a type are kept: little of the half a gigabyte of COCO's training
annotations. While it is read it takes about seven times its size of memory.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from geodapt.data.text_files import existing
from geodapt.errors import InputError
from geodapt.paths import regular
from geodapt.settings import first_error

T = TypeVar("T")


def read_annotations(path: Path, kind: type[T], of: str) -> T:
    """What a file holds, as a dataclass; ``of`` says whose file it should be.

    Raises :class:`InputError` with the place of the first thing that is not as it should be.
    """
    content = regular(existing(path)).read_bytes()
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as error:
        raise InputError(f"'{path}' is no file of {of}: {first_error(error)}") from error
