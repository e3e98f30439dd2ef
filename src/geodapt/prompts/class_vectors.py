"""Classes as pictures are compared with them, in a file: what serves without a text tower."""

import json
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError
from geodapt.files import read_tensors, write_tensors
from geodapt.headers import read_header


@dataclass(frozen=True)
class ClassVectors:
    """Classes as they are compared with pictures: what serves without a text tower."""

    names: tuple[str, ...]
    vectors: Float[Tensor, "classes d"]

    def save(self, path: Path | str) -> None:
        """Write them as one safetensors file, with the names in its metadata."""
        write_tensors(path, {"vectors": self.vectors}, {"names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: Path | str) -> "ClassVectors":
        """Read what :meth:`save` wrote."""
        vectors = read_tensors(path).get("vectors")
        try:
            names = json.loads(read_header(Path(path)).metadata.get("names", ""))
        except ValueError:
            names = None
        whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if vectors is None or vectors.dim() != 2 or not whole or len(names) != len(vectors):
            raise InputError(f"'{path}' holds no vectors of classes with a name for each")
        return cls(tuple(names), vectors)
