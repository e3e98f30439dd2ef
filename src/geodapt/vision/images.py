"""Pictures and masks from files, converted exactly or refused with the file's name.

A picture comes out as 8-bit RGB, turned as its EXIF data say; transparent parts are laid on white;
16-bit values are scaled, not cut. Refused are files that are no pictures or are cut short, several
frames (but of MPO, the first of which is the photo), floating-point values, whose white nobody
knows, a transparent one among colours of 16 bits, and more pixels than :data:`MOST_PIXELS`.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
from jaxtyping import Int

from geodapt.errors import InputError, reason_of
from geodapt.extras import require_pillow
from geodapt.paths import given

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 150_000_000
"""More than today's cameras produce; a small file could claim any size and fill the memory."""

_STEPS = {"L;2": 85, "L;4": 17}
"""Forms of PNG whose values Pillow scales, but not the transparent one, and one step of grey."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def open_picture(source: "Path | str | bytes | Image", name: str = "") -> "Image":
    """A picture as 8-bit RGB, from a file, its bytes or an opened image; ``name`` is for errors."""
    with _opened(source, name) as (image, called):
        return as_rgb(image, called)


def open_mask(source: "Path | str | bytes | Image", name: str = "") -> Int[np.ndarray, "h w"]:
    """The values of a mask: of a palette its indices, of 8, 16 or 32 bits the numbers, unscaled.

    Raises :class:`InputError` as :func:`open_picture` does, and for colours, which are no values.
    """
    with _opened(source, name) as (image, called):
        _check(image, called)
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise InputError(
                f"mask '{called}' has {image.mode} pixels; expected one number per pixel, as a "
                "palette or grey values of 8 or 16 bits"
            )
        return np.array(_loaded(image, called)).astype(np.int64)


def open_segments(source: "Path | str | bytes | Image", name: str = "") -> Int[np.ndarray, "h w"]:
    """The id of each pixel's segment: of colours R + 256 G + 65536 B, as COCO's panoptic masks.

    Of one number per pixel as :func:`open_mask`; raises :class:`InputError` as it does.
    """
    with _opened(source, name) as (image, called):
        if image.mode != "RGB":
            return open_mask(image, called)
        _check(image, called)
        colours = np.array(_loaded(image, called)).astype(np.int64)
        return colours @ np.array([1, 256, 65536])


def require_size(
    shape: tuple[int, ...], size: tuple[int, int], called: str, picture: str, many: bool = False
) -> None:
    """Raise :class:`InputError` where a mask, or ``many`` segments, are not as large as a picture.

    ``shape`` is theirs, height first; ``size`` the picture's, width first.
    """
    if tuple(shape) != size[::-1]:
        verb, own = ("have", "their") if many else ("has", "its")
        raise InputError(
            f"{called} {verb} {shape[1]} x {shape[0]} pixels, {own} picture '{picture}' "
            f"{size[0]} x {size[1]} (turned as its camera was)"
        )


def require_pictures(images: Any) -> None:
    """Raise :class:`InputError` for one picture in place of a list of them, and for no pictures."""
    if not isinstance(images, Sequence) and not hasattr(images, "__getitem__"):
        raise InputError(f"give a list of pictures, not a {type(images).__name__}")
    if not len(images):
        raise InputError("there is nothing to look at: no pictures")


def as_rgb(image: "Image", name: str = "") -> "Image":
    """An opened picture as 8-bit RGB, by the rules of this module.

    Raises :class:`InputError` for what has no right conversion.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    if not isinstance(image, Pillow.Image):
        raise InputError(
            f"a picture is a {type(image).__name__}; give Pillow's images, as "
            "geodapt.vision.open_picture reads them of files"
        )
    name = name or _called(image)
    _check(image, name)
    tiles = getattr(image, "tile", None)  # until it is loaded
    form = str(tiles[0][3]) if tiles and image.format == "PNG" else ""
    _loaded(image, name)
    if image.mode == "RGB" and not image.getexif() and "transparency" not in image.info:
        return image
    clear = image.info.get("transparency")
    if clear is not None and (form == "RGB;16B" or _is_wide(clear)):
        raise InputError(
            f"picture '{name}' has colours of 16 bits and one of them is transparent, which 8 bits "
            "cannot tell from its neighbours; save it with an alpha channel"
        )
    try:
        image = ImageOps.exif_transpose(image)
        if form in _STEPS and isinstance(clear, int):
            image.info["transparency"] = clear * _STEPS[form]
        if image.mode == "F":
            raise InputError(
                f"picture '{name}' has floating-point values, whose white is unknown; save it with "
                "8 or 16 bits"
            )
        if image.mode == "I" or image.mode.startswith("I;16"):
            values = np.array(image).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise InputError(
                    f"picture '{name}' has values from {values.min()} to {values.max()}; expected "
                    "16 bits, 0 to 65535"
                )
            image = Pillow.fromarray(np.round(values / 257).astype(np.uint8))
            if isinstance(clear, int):
                image.putalpha(Pillow.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            clear = image.convert("RGBA")
            image = Pillow.new("RGBA", clear.size, "white")
            image.alpha_composite(clear)
        return image.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # whatever a strange mode or broken metadata lead to
        raise InputError(f"picture '{name}' cannot be turned into RGB: {error}") from error


def _is_wide(clear: Any) -> bool:
    return isinstance(clear, tuple) and max(clear) > 255


def shrunk(image: "Image", side: int) -> "Image":
    """A copy whose longer side has at most so many pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    return small


def png_bytes(image: "Image") -> bytes:
    """The picture as a PNG file."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def png_text(image: "Image") -> str:
    """A PNG in base 64, for a page."""
    return b64encode(png_bytes(image)).decode()


class PictureFiles(Sequence):
    """Picture files, each opened when it is asked for (:func:`open_picture`)."""

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.paths = [given(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return PictureFiles(self.paths[row])
        return open_picture(self.paths[row])


@contextmanager
def _opened(source: Any, name: str) -> "Iterator[tuple[Image, str]]":
    """The image of a source, not yet decoded, and what errors call it."""
    require_pillow()
    from PIL import Image as Pillow

    if isinstance(source, Pillow.Image):
        yield source, name or _called(source)
        return
    called = name or ("in memory" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes) and not (source := given(source)).is_file():
        raise InputError(f"picture '{called}' does not exist or is no file")  # a pipe would wait
    try:
        with catch_warnings():
            simplefilter("ignore", Pillow.DecompressionBombWarning)  # MOST_PIXELS decides
            image = Pillow.open(BytesIO(source) if isinstance(source, bytes) else source)
    except Pillow.UnidentifiedImageError as error:
        raise InputError(f"picture '{called}' is no image that Pillow can read") from error
    except Exception as error:  # whatever Pillow's readers raise over a broken file
        raise InputError(f"picture '{called}' cannot be read: {reason_of(error)}") from error
    with image:
        yield image, called


def _called(image: "Image") -> str:
    return getattr(image, "filename", "") or f"in memory, {image.width} x {image.height} pixels"


def _check(image: "Image", name: str) -> None:
    """Refuse what must not be decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(
            f"picture '{name}' has {width:,} x {height:,} pixels, over {MOST_PIXELS:,}; make it "
            "smaller, or cut it"
        )
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as error:  # counting reads the file on
        raise InputError(f"picture '{name}' cannot be read: {error}") from error
    if frames > 1 and image.format != "MPO":
        raise InputError(
            f"picture '{name}' has {frames} frames or pages; save the one that is meant by itself"
        )


def _loaded(image: "Image", name: str) -> "Image":
    try:
        image.load()
    except Exception as error:  # cut short, or broken inside
        raise InputError(f"picture '{name}' cannot be read: {reason_of(error)}") from error
    return image
