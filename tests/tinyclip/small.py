"""Settings of a CLIP that trains within a second or two, on the Greek letters of two fonts."""

from pathlib import Path

import matplotlib

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SMALL = {
    "data": {
        "fonts": [str(FONTS / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSerif")],
        "scripts": ["Greek"],
        "size": 16,
        "shifted": [],
    },
    "model": {
        "vision": {"width": 32, "layers": 1, "heads": 2},
        "text": {"width": 32, "layers": 1, "heads": 2},
        "embedding": 16,
        "vocabulary": 400,
    },
    "training": {"steps": 12, "batch_size": 16, "save_every": 4, "log_every": 4},
}
