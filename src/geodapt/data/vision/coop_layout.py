"""The eleven data sets of prompt learning and four variants of ImageNet, as CoOp lays them out.

A folder holds one folder per data set, as CoOp's ``DATASETS.md`` says how to make it. The
``split_zhou_*.json`` files decide splits and order, so that few-shot draws are the published ones;
ImageNet's published draws follow the order in which a file system lists files, and cannot be had
again.
"""

from dataclasses import dataclass
from pathlib import Path

from geodapt.data.text_files import existing, lines, not_found
from geodapt.data.vision.image_folder import Rows, picture_files, read_split_file
from geodapt.data.vision.labelled_files import labelled_files, within
from geodapt.data.vision.pictures import Pictures
from geodapt.data.vision.settings import CoopSettings
from geodapt.errors import InputError

PHOTO_OF_A = "a photo of a {}."


@dataclass(frozen=True)
class CoopSet:
    """Where one data set lies, and the sentence that zero-shot classification asks of it."""

    folder: str
    images: str
    split: str | None
    """The file with the splits; None where the data set has its own files."""
    template: str = PHOTO_OF_A


COOP_SETS = {
    "caltech101": CoopSet("caltech-101", "101_ObjectCategories", "Caltech101"),
    "oxford_pets": CoopSet(
        "oxford_pets", "images", "OxfordPets", "a photo of a {}, a type of pet."
    ),
    "stanford_cars": CoopSet("stanford_cars", "", "StanfordCars"),
    "oxford_flowers": CoopSet(
        "oxford_flowers", "jpg", "OxfordFlowers", "a photo of a {}, a type of flower."
    ),
    "food101": CoopSet("food-101", "images", "Food101", "a photo of {}, a type of food."),
    "fgvc_aircraft": CoopSet(
        "fgvc_aircraft", "images", None, "a photo of a {}, a type of aircraft."
    ),
    "sun397": CoopSet("sun397", "SUN397", "SUN397"),
    "dtd": CoopSet("dtd", "images", "DescribableTextures", "{} texture."),
    "eurosat": CoopSet("eurosat", "2750", "EuroSAT", "a centered satellite photo of {}."),
    "ucf101": CoopSet("ucf101", "UCF-101-midframes", "UCF101", "a photo of a person doing {}."),
    "imagenet": CoopSet("imagenet", "images", None),
    "imagenetv2": CoopSet("imagenetv2", "imagenetv2-matched-frequency-format-val", None),
    "imagenet_sketch": CoopSet("imagenet-sketch", "images", None),
    "imagenet_a": CoopSet("imagenet-adversarial", "imagenet-a", None),
    "imagenet_r": CoopSet("imagenet-rendition", "imagenet-r", None),
}


def load_coop(settings: CoopSettings) -> Pictures:
    """One data set of a folder in CoOp's layout.

    The variants of ImageNet have a test split only; ImageNet's test split is its validation
    folder, and it has no other. Raises :class:`InputError` for missing files and folders, with
    their names, and as :func:`~geodapt.data.vision.image_folder.load_split_file` does.
    """
    of = COOP_SETS[settings.name]
    root = existing(settings.path)
    if not (root / of.folder).is_dir():
        raise not_found(root, f"folder '{of.folder}', which is where CoOp lays {settings.name}")
    folder = root / of.folder
    if not (images := folder / of.images).is_dir():
        raise not_found(folder, f"folder '{of.images}' with the pictures of {settings.name}")
    if of.split:
        file = folder / f"split_zhou_{of.split}.json"
        if not file.is_file():
            raise not_found(folder, f"file '{file.name}', which says what trains and what tests")
        return read_split_file(file, images, of.template, settings.name, settings.check)
    if settings.name == "fgvc_aircraft":
        return _aircraft(folder, images, settings)
    return _imagenet(folder, images, settings)


def _aircraft(folder: Path, images: Path, settings: CoopSettings) -> Pictures:
    variants = _listed(folder, "variants.txt")
    names = [line.strip() for _, line in lines(variants) if line.strip()]
    number = {name: label for label, name in enumerate(names)}
    rows: Rows = {}
    for key, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        file = _listed(folder, f"images_variant_{key}.txt")
        for at, line in lines(file):
            picture, _, name = line.strip().partition(" ")
            if not picture:
                continue
            if name not in number:
                raise InputError(f"{file}, line {at}: '{name}' is no variant of {variants.name}")
            found = within(images, f"{picture}.jpg", file)
            rows.setdefault(split, []).append((found, number[name]))
    template = COOP_SETS[settings.name].template
    return labelled_files(rows, names, template, settings.name, settings.check, folder)


def _imagenet(folder: Path, images: Path, settings: CoopSettings) -> Pictures:
    file = _listed(folder, "classnames.txt")
    words = [line.strip().partition(" ") for _, line in lines(file) if line.strip()]
    called = {wnid: name for wnid, _, name in words}
    if settings.name == "imagenetv2":  # its folders are the numbers of the classes
        names = [name for _, _, name in words]
        number = {str(label): label for label in range(len(names))}
        return _of_folders({"test": images}, number, names, settings, file)
    parts = {"test": images}
    if settings.name == "imagenet":
        parts = {"train": images / "train", "test": images / "val"}
        for part in parts.values():
            if not part.is_dir():
                raise not_found(images, f"folder '{part.name}'")
    there = sorted(
        {path.name for part in parts.values() for path in part.iterdir() if path.is_dir()}
    )
    if unknown := [wnid for wnid in there if wnid not in called]:
        raise InputError(f"{file} does not name the class of the folder '{unknown[0]}'")
    number = {wnid: label for label, wnid in enumerate(there)}
    return _of_folders(parts, number, [called[wnid] for wnid in there], settings, file)


def _of_folders(
    parts: dict[str, Path],
    number: dict[str, int],
    names: list[str],
    settings: CoopSettings,
    file: Path,
) -> Pictures:
    rows: Rows = {}
    for split, part in parts.items():
        if unknown := [
            p.name for p in sorted(part.iterdir()) if p.is_dir() and p.name not in number
        ]:
            raise InputError(f"{part} has the folder '{unknown[0]}', which is no class of {file}")
        for wnid, label in number.items():
            if (part / wnid).is_dir():
                rows.setdefault(split, []).extend(
                    (path, label) for path in picture_files(part / wnid)
                )
    template = COOP_SETS[settings.name].template
    return labelled_files(rows, names, template, settings.name, settings.check, file)


def _listed(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise not_found(folder, f"file '{name}'")
    return folder / name
