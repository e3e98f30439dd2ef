"""Training a CLIP on rendered characters, from scratch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import CLIPModel, CLIPProcessor, set_seed

from geodapt.data.vision.pictures import label_column
from geodapt.files import atomic_folder
from geodapt.processes import is_main_process, processes
from geodapt.tinyclip.model import new_clip
from geodapt.tinyclip.pairs import Pairs, pixels
from geodapt.tinyclip.settings import TinyClipSettings
from geodapt.training import TrainingSettings, fit, parameter_groups

if TYPE_CHECKING:
    from geodapt.data.glyphs import Glyphs


def train_clip(
    settings: TinyClipSettings, glyphs: "Glyphs", work: Path, **watched: Any
) -> tuple[CLIPModel, CLIPProcessor]:
    """A CLIP of these settings, trained on the ``train`` split by transformers' contrastive loss.

    ``work`` takes the checkpoints, from which a training that was cut short continues; ``watched``
    goes to :func:`geodapt.training.fit`.
    """
    model, processor = untrained_clip(settings, glyphs)
    chains = glyphs.classes["captions"][:]
    rows = glyphs.splits["train"]
    labels = label_column(rows)
    pairs = Pairs(
        pixels(rows),
        labels,
        chains,
        processor.tokenizer,
        settings.general,
        settings.moved,
        settings.zoomed,
        settings.still * _epochs(settings.training, len(rows)),
    )
    fit(
        model,
        pairs,
        settings.training,
        work=work,
        collate=pairs.collate,
        groups=parameter_groups(model, settings.training.weight_decay),
        label="training clip-glyphs",
        seed=settings.seed,
        **watched,
    )
    return model.eval(), processor


def _epochs(training: TrainingSettings, rows: int) -> float:
    """How many times a training reads its rows."""
    at_once = training.batch_size * training.gradient_accumulation * processes()
    return training.epochs or training.steps * at_once / rows


def untrained_clip(settings: TinyClipSettings, glyphs: "Glyphs") -> tuple[CLIPModel, CLIPProcessor]:
    """What training starts from, by the seed; its tokenizer learns from the known captions."""
    chains = zip(glyphs.classes["captions"], glyphs.classes["new"], strict=True)
    captions = [caption for chain, new in chains if not new for caption in chain]
    set_seed(settings.seed)
    return new_clip(settings.model, settings.data.size, captions)


def save_clip(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    """Write both so that ``load_clip(folder)`` and transformers' Auto classes read them."""
    if is_main_process():
        with atomic_folder(folder) as temporary:
            model.save_pretrained(temporary)
            processor.save_pretrained(temporary)
