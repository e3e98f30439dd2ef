"""Small tables on disk."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path


def write_table(path: Path, rows: Sequence[dict]) -> Path:
    """CSV or JSONL, gzipped or plain, as the name's ending says."""
    pack = gzip.open if path.suffix == ".gz" else open
    with pack(path, "wt", newline="") as file:
        if ".csv" in path.suffixes:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path
