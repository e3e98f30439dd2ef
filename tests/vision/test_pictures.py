"""Pictures and masks of every kind: right, or refused by the file's name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from geodapt.errors import InputError
from geodapt.vision import PictureFiles, open_mask, open_picture
from geodapt.vision import images as module
from geodapt.vision.images import as_rgb


@pytest.fixture
def grey():
    return np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def saved(tmp_path, name, image, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_plain_pictures_of_every_mode(tmp_path, grey):
    rgb = Image.fromarray(np.stack([grey, grey[::-1], grey], axis=2))
    for mode in ("RGB", "L", "P", "CMYK", "1"):
        image = rgb.convert(mode)
        path = saved(tmp_path, f"{mode}.tif", image)
        found = open_picture(path)
        assert found.mode == "RGB"
        assert np.array_equal(np.array(found), np.array(image.convert("RGB")))
    from_bytes = open_picture((tmp_path / "RGB.tif").read_bytes())
    assert np.array_equal(np.array(from_bytes), np.array(rgb))
    assert open_picture(rgb) is rgb  # nothing to do, nothing copied


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_camera_was(tmp_path, orientation):
    upright = np.zeros((16, 8), dtype=np.uint8)
    upright[:8, :4], upright[8:, 4:] = 255, 128
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, "a.png", Image.fromarray(np.ascontiguousarray(turn(upright))), exif=exif)
    assert np.array_equal(np.array(open_picture(path))[:, :, 0], upright)


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    path = saved(tmp_path, "a.png", Image.fromarray(values))
    assert np.array(open_picture(path))[:, :, 1].tolist() == [[0, 100], [200, 255]]
    path = saved(tmp_path, "a.tif", Image.fromarray(values))
    assert np.array(open_picture(path))[:, :, 1].tolist() == [[0, 100], [200, 255]]
    path = saved(tmp_path, "b.tif", Image.fromarray(np.array([[70000, -1]], dtype=np.int32)))
    with pytest.raises(InputError, match=r"b\.tif' has values from -1 to 70000; expected 16 bits"):
        open_picture(path)
    path = saved(tmp_path, "c.tif", Image.fromarray(np.zeros((2, 2), dtype=np.float32)))
    with pytest.raises(InputError, match=r"c\.tif' has floating-point values"):
        open_picture(path)


def test_transparent_parts_lie_on_white(tmp_path):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    path = saved(tmp_path, "a.png", Image.fromarray(rgba))
    assert np.array(open_picture(path)).tolist() == [
        [[10, 20, 30], [255, 255, 255]],
        [[255, 255, 255], [255, 255, 255]],
    ]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    path = saved(tmp_path, "b.png", palette, transparency=0)
    assert np.array(open_picture(path)).tolist() == [[[255, 255, 255], [200, 0, 0]]]


def raw_png(bits, colour, row, transparent):
    """A PNG of four pixels in one row, as Pillow writes none."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "shown"),
    [
        (1, b"\x50", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x03\xc8", 3, [0, 255, 204, 136]),
        (8, bytes([0, 3, 51, 7]), 3, [0, 255, 51, 7]),
        (16, struct.pack(">4H", 0, 771, 770, 25700), 771, [0, 255, 3, 100]),
    ],
)
def test_a_transparent_grey_is_white_in_every_depth(bits, row, transparent, shown):
    picture = open_picture(raw_png(bits, 0, row, [transparent]))
    assert np.array(picture)[0].tolist() == [[grey] * 3 for grey in shown]


@pytest.mark.parametrize("transparent", [(0, 0, 0), (300, 40_000, 7)])
def test_a_transparent_colour_of_sixteen_bits_is_refused(transparent):
    row = struct.pack(">12H", *transparent, *[200] * 9)
    with pytest.raises(InputError, match="colours of 16 bits and one of them is transparent"):
        open_picture(raw_png(16, 2, row, transparent))


def test_several_frames_are_refused_but_of_a_camera(tmp_path, grey):
    frames = [Image.fromarray(grey), Image.fromarray(grey[::-1])]
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        path = saved(tmp_path, name, frames[0], save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match=f"{name}' has 2 frames or pages"):
            open_picture(path)
        alone = saved(tmp_path, f"one-{name}", frames[0])
        assert open_picture(alone).size == (6, 4)
    photo = Image.fromarray(grey).convert("RGB")
    path = saved(tmp_path, "a.mpo", photo, save_all=True, append_images=[photo.rotate(180)])
    assert np.array(open_picture(path)).mean() == pytest.approx(grey.mean(), abs=5)


def bomb(width, height):
    """A PNG of few bytes that claims many pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch, recwarn):
    for side in (13_000, 40_000):  # Pillow warns of the one and refuses the other
        (tmp_path / "bomb.png").write_bytes(bomb(side, side))
        with pytest.raises(InputError, match=r"bomb\.png'.*pixels"):
            open_picture(tmp_path / "bomb.png")
    assert not recwarn
    monkeypatch.setattr(module, "MOST_PIXELS", 24)
    assert open_picture(saved(tmp_path, "a.png", Image.new("L", (6, 4)))).size == (6, 4)
    with pytest.raises(InputError, match="5 x 5 pixels, over 24"):
        open_picture(saved(tmp_path, "b.png", Image.new("L", (5, 5))))


def test_broken_files_are_refused_by_name(tmp_path, grey):
    noise = Image.effect_noise((64, 64), 90)
    for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp"):
        whole = io.BytesIO()
        noise.save(whole, {"jpg": "JPEG", "tif": "TIFF"}.get(name[2:], name[2:].upper()))
        for share in (0.0, 0.05, 0.6):
            (tmp_path / name).write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
            with pytest.raises(InputError, match=f"{name}'"):
                open_picture(tmp_path / name)
            with pytest.raises(InputError, match="thing'"):
                open_mask((tmp_path / name).read_bytes(), "thing")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png' is no image that Pillow can read"):
        open_picture(tmp_path / "text.png")
    with pytest.raises(InputError, match=r"nowhere\.png' does not exist"):
        open_picture(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="does not exist or is no file"):
        open_picture(tmp_path)


def test_a_picture_without_a_name_is_told_by_its_file_or_size(tmp_path):
    image = Image.new("F", (6, 4))
    with pytest.raises(InputError, match="picture 'in memory, 6 x 4 pixels' has floating-point"):
        as_rgb(image)
    opened = Image.open(saved(tmp_path, "a.tif", image))
    with opened, pytest.raises(InputError, match=r"a\.tif' has floating-point"):
        as_rgb(opened)


def test_files_open_when_they_are_asked_for(tmp_path, grey):
    path = saved(tmp_path, "a.png", Image.fromarray(grey))
    files = PictureFiles([path, tmp_path / "nowhere.png", str(path)])
    assert len(files) == 3
    assert files[2].mode == "RGB"
    assert len(files[::2]) == 2
    assert np.array_equal(np.array(files[::2][1]), np.array(files[0]))
    with pytest.raises(InputError, match="nowhere"):
        files[1]


# --- masks --------------------------------------------------------------------------------------


def test_masks_keep_their_numbers(tmp_path):
    values = np.array([[0, 1, 254], [255, 7, 3]], dtype=np.uint8)
    assert open_mask(saved(tmp_path, "a.png", Image.fromarray(values))).tolist() == values.tolist()
    palette = Image.fromarray(values, "L").convert("P")
    palette.putdata(list(values.flatten().tolist()))
    palette.putpalette([v for n in range(256) for v in (255 - n, n, 0)])
    assert open_mask(saved(tmp_path, "p.png", palette)).tolist() == values.tolist()
    wide = values.astype(np.uint16) * 250
    for name in ("w.png", "w.tif"):
        found = open_mask(saved(tmp_path, name, Image.fromarray(wide)))
        assert found.tolist() == wide.tolist()
        assert found.dtype == np.int64
    with pytest.raises(InputError, match=r"mask '.*c\.png' has RGB pixels; expected one number"):
        open_mask(saved(tmp_path, "c.png", Image.fromarray(values).convert("RGB")))
