"""Field failures 2 to 5, 7, 9, 14 and 19: one loader for whatever a picture file may hold."""

from __future__ import annotations

import io
import logging
import os
import struct
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from gift.data.images import MAX_PIXELS, PictureError, constant_pictures, content_key, read_picture, shown
from gift.errors import GiftError

few = settings(max_examples=40, deadline=None)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = np.array([[0, 128, 129], [257, 32896, 65535]], dtype=np.uint16)
DEEP_AS_BYTES = [[0, 0, 1], [1, 128, 255]]
SMALL = {name: io.BytesIO() for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")}
for name, buffer in SMALL.items():
    Image.fromarray(COLOURS).save(buffer, name)


def pixels(picture: torch.Tensor) -> npt.NDArray[np.uint8]:
    assert picture.dtype == torch.uint8
    assert picture.is_contiguous()
    array: npt.NDArray[np.uint8] = picture.permute(1, 2, 0).numpy()
    return array


def grey(picture: torch.Tensor) -> list[list[int]]:
    assert torch.equal(picture[0], picture[1])
    assert torch.equal(picture[0], picture[2])
    rows: list[list[int]] = picture[0].tolist()
    return rows


def png(width: int, height: int, depth: int, colour: int, rows: bytes, clear: bytes = b"") -> bytes:
    """A PNG with header values that Pillow would not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    middle = chunk(b"tRNS", clear) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: npt.NDArray[np.generic], bits: int, sample: int = 1, photometric: int = 1) -> bytes:
    """A little-endian grey TIFF of (H, W) values."""
    data, tags = values.tobytes(), [(256, values.shape[1]), (257, values.shape[0]), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, values.shape[0]), (279, len(data)), (339, sample)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    return b"II" + struct.pack("<HIH", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + data


def refused(path: Path, *words: str) -> PictureError:
    """The picture is refused in one line with its name, the reason and a remedy."""
    with pytest.raises(PictureError) as caught:
        read_picture(path, 8)
    message = str(caught.value)
    assert message.startswith(f"{shown(path)}: {caught.value.reason}; ")
    assert message.isprintable()
    for word in words:
        assert word in message
    return caught.value


def loaded(path: Path, size: int | None = None) -> torch.Tensor | None:
    """The picture, or None where it is refused as it should be."""
    try:
        return read_picture(path, size)
    except GiftError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return None


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_colours_and_shape_are_kept_by_lossless_formats(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"  # the ending does not decide
    path.write_bytes(SMALL[kind].getvalue())
    picture = read_picture(path)
    assert picture.shape == (3, 6, 9)
    assert np.array_equal(pixels(picture), COLOURS)


def test_hidden_colour_under_alpha_never_shows(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 255  # red everywhere, hidden but for one row
    rgba[1] = (255, 0, 0, 255)
    rgba[1, 1, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    out = pixels(read_picture(tmp_path / "a.png"))
    assert out[0].tolist() == [[255, 255, 255]] * 2
    assert out[1, 0].tolist() == [255, 0, 0]
    assert np.abs(out[1, 1].astype(int) - [255, 127, 127]).max() <= 1
    resized = pixels(read_picture(tmp_path / "a.png", 4))
    assert resized[0].tolist() == [[255, 255, 255]] * 4  # no red halo: composited before resizing
    green = pixels(read_picture(tmp_path / "a.png", background=(0, 255, 0)))
    assert green[0, 0].tolist() == [0, 255, 0]


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8)).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "LA"
    assert grey(read_picture(tmp_path / "a.png")) == [[255, 10]]


def test_premultiplied_tiff(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[200, 0, 0, 0], [10, 20, 30, 255]]], np.uint8)).save(tmp_path / "a.tif")
    assert pixels(read_picture(tmp_path / "a.tif")).tolist() == [[[255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize("clear", [1, b"\xff\x00\xff"], ids=["one entry", "alpha for each entry"])
def test_palette_with_transparency(tmp_path: Path, clear: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putdata([0, 1, 2])
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 90])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=clear)
    assert pixels(read_picture(tmp_path / "plain.png")).tolist() == [[[10, 20, 30], [200, 0, 0], [0, 0, 90]]]
    assert pixels(read_picture(tmp_path / "clear.png")).tolist() == [[[10, 20, 30], [255, 255, 255], [0, 0, 90]]]


@pytest.mark.parametrize(
    ("depth", "rows", "clear", "expected"),
    [
        (1, b"\0\x80", 1, [255, 0]),
        (2, b"\0\x90", 1, [170, 255]),  # 2-bit values 2 and 1, 1 is clear
        (4, b"\0\x7f", 7, [255, 255]),
        (4, b"\0\x7e", 14, [119, 255]),
        (8, b"\0\x07\x0e", 7, [255, 14]),
        (16, b"\0\x80\x80\x80\x81", 0x8080, [255, 128]),
    ],
)
def test_grey_png_with_one_clear_value(tmp_path: Path, depth: int, rows: bytes, clear: int, expected: list[int]) -> None:
    (tmp_path / "a.png").write_bytes(png(2, 1, depth, 0, rows, struct.pack(">H", clear)))
    assert grey(read_picture(tmp_path / "a.png")) == [expected]


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_png_with_one_clear_value(tmp_path: Path, depth: int) -> None:
    kind, values = (">6H", (0x1234, 0, 0, 0x3412, 0, 0)) if depth == 16 else (">6B", (0x12, 0, 0, 0x34, 0, 0))
    clear = struct.pack(">3H", values[0], 0, 0)
    (tmp_path / "a.png").write_bytes(png(2, 1, depth, 2, b"\0" + struct.pack(kind, *values), clear))
    assert pixels(read_picture(tmp_path / "a.png")).tolist() == [[[255, 255, 255], [0x34, 0, 0]]]


def test_sixteen_bit_grey_keeps_its_tones(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    Image.fromarray(DEEP).save(tmp_path / "a.tif")
    assert grey(read_picture(tmp_path / "a.png")) == DEEP_AS_BYTES
    assert grey(read_picture(tmp_path / "a.tif")) == DEEP_AS_BYTES


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(DEEP.astype("<u2"), 16, photometric=0), [[255, 255, 254], [254, 127, 0]]),
        (tiff(np.array([[0, 32767]], "<i2"), 16, sample=2), [[0, 255]]),
        (tiff(DEEP.astype("<i4"), 32, sample=2), DEEP_AS_BYTES),
        (tiff(np.array([[0, 2**31, 2**32 - 1]], "<u4"), 32), [[0, 128, 255]]),
        (tiff(np.array([[3, 200]], "<i4"), 32, sample=2), [[3, 200]]),
        (tiff(np.array([[0.0, 0.5, 1.0]], "<f4"), 32, sample=3), [[0, 128, 255]]),
        (tiff(np.array([[0.0, 12.4, 255.0]], "<f4"), 32, sample=3), [[0, 12, 255]]),
        (tiff(DEEP.astype("<f4"), 32, sample=3), DEEP_AS_BYTES),
        (tiff(np.frombuffer(b"\xff\xf8\x00", np.uint8)[None, :2], 12)[:-2] + b"\xff\xf8\x00", [[255, 128]]),
    ],
    ids=["white is zero", "int16", "int32", "uint32", "int32 bytes", "float", "float bytes", "float deep", "12 bits"],
)
def test_deep_tiff(tmp_path: Path, data: bytes, expected: list[list[int]]) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    assert grey(read_picture(tmp_path / "a.tif")) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e12])
def test_values_without_a_meaning_are_refused(tmp_path: Path, value: float) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(np.array([[0.0, value]], "<f4"), 32, sample=3))
    refused(tmp_path / "a.tif", "values")


def test_one_bit_and_eight_bit_grey(tmp_path: Path) -> None:
    bit = Image.new("1", (2, 1))
    bit.putdata([0, 255])
    bit.save(tmp_path / "bit.png")
    Image.fromarray(np.array([[0, 77, 255]], np.uint8)).save(tmp_path / "grey.png")
    assert grey(read_picture(tmp_path / "bit.png")) == [[0, 255]]
    assert grey(read_picture(tmp_path / "grey.png")) == [[0, 77, 255]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    out = pixels(read_picture(tmp_path / "a.jpg")).astype(int)
    assert np.abs(out - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(tmp_path: Path, kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (0, 0, 255)), Image.new("RGB", (8, 8), (255, 0, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / "a.gif", kind, save_all=True, append_images=[second], **options)
    with Image.open(tmp_path / "a.gif") as image:
        assert getattr(image, "n_frames", 1) == 2
    assert (pixels(read_picture(tmp_path / "a.gif")) == [0, 0, 255]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation_is_undone(tmp_path: Path, kind: str, orientation: int) -> None:
    """The stored picture is the upright one moved by the inverse of what the EXIF standard says to do."""
    corner = np.zeros((16, 24, 3), np.uint8)
    corner[:8, :8] = (255, 0, 0)  # upright: red at top left, blue at top right
    corner[:8, 16:] = (0, 0, 255)
    inverse = {
        1: corner,
        2: corner[:, ::-1],
        3: corner[::-1, ::-1],
        4: corner[::-1],
        5: corner.transpose(1, 0, 2),
        6: np.rot90(corner),
        7: corner.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(corner, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(np.ascontiguousarray(inverse[orientation])).save(tmp_path / "a.jpg", kind, exif=exif, **options)
    out = pixels(read_picture(tmp_path / "a.jpg")).astype(int)
    assert out.shape == corner.shape
    assert np.abs(out - corner).max() <= (8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_does_not_cost_a_good_photo(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(read_picture(tmp_path / "a.png")), COLOURS)


def test_size_cuts_the_centre_square_and_resizes_with_antialias(tmp_path: Path) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, :32] = wide[:, 96:] = (255, 0, 0)  # outside the centre square
    wide[::2, 32:96] = 255  # one-pixel stripes: without antialias all black or all white
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        out = read_picture(tmp_path / name, 8)
        assert out.shape == (3, 8, 8)
        inner = torch.tensor(grey(out))[1:-1, 1:-1]
        assert ((inner > 110) & (inner < 145)).all()
    assert np.array_equal(pixels(read_picture(tmp_path / "wide.png", 64)), wide[:, 32:96])  # no resampling at its own size
    assert read_picture(tmp_path / "wide.png", 200).shape == (3, 200, 200)


@pytest.mark.parametrize("size", [0, -1])
def test_size_must_be_positive(tmp_path: Path, size: int) -> None:
    with pytest.raises(GiftError, match=f"can't be {size} pixels"):
        read_picture(tmp_path / "a.png", size)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_file_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some other library leaves it
    data = SMALL[kind].getvalue()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 2 // 3])
    refused(tmp_path / "a.jpg", "remove it")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty (0 bytes)"),
        (b"hello, this is text", "not a picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "remove it"),
        (b"\xff\xd8\xff", "remove it"),
    ],
)
def test_true_kind_of_a_wrong_file_is_named(tmp_path: Path, data: bytes, word: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", word)


@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_pixel_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    assert side * side > MAX_PIXELS
    (tmp_path / "a.png").write_bytes(png(side, side, 1, 0, b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / "a.png", "64 million", "make it smaller")


def test_pillow_prints_nothing_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program that set up no logging
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(printed))
    one, many = (struct.pack("<HHII", 277, 3, 1, samples) for samples in (1, 84))
    (tmp_path / "a.tif").write_bytes(tiff(DEEP, 16).replace(one, many))
    refused(tmp_path / "a.tif")
    assert printed.getvalue() == ""


def test_libtiff_prints_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for how in ("tiff_lzw", "tiff_adobe_deflate"):
        Image.fromarray(COLOURS).save(tmp_path / "a.tif", compression=how)
        data = bytearray((tmp_path / "a.tif").read_bytes())
        with Image.open(tmp_path / "a.tif") as image:
            start = image.tag_v2[273][0]  # type: ignore[attr-defined]
        data[start + 2 : start + 40] = b"\xff" * 38
        (tmp_path / "a.tif").write_bytes(data)
        refused(tmp_path / "a.tif", "save it again as PNG")
    assert capfd.readouterr() == ("", "")


def test_text_bomb_is_refused(tmp_path: Path) -> None:
    text = b"k\0\0" + zlib.compress(b"\0" * 50_000_000)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    data = SMALL["PNG"].getvalue()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    refused(tmp_path / "a.png", "too large")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("pipe.png", "folder.png"):
        refused(tmp_path / name, "not a regular file")
    for name in ("link.png", "loop.png", "gone.png"):
        refused(tmp_path / name, "no such file")
    refused(tmp_path / ("x" * 300 + ".png"), "can't be read")


def test_disk_error_names_the_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(SMALL["PNG"].getvalue())

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(tmp_path / "a.png", "Permission denied", "check the disk and the permissions")


@pytest.mark.parametrize(
    "name", ["ein bild.png", "Übergröße 猫 🐈.png", "quote'\".png", os.fsdecode(b"\xff\xfe.png"), "two\nlines.png"]
)
def test_any_path_works_and_can_be_shown(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SMALL["PNG"].getvalue())
    assert np.array_equal(pixels(read_picture(path)), COLOURS)
    path.write_bytes(b"")
    refused(path, "empty").args[0].encode("utf-8")


def test_reading_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(SMALL["PNG"].getvalue())
    before = path.stat()
    read_picture(path, 4)
    after = path.stat()
    assert (path.read_bytes(), after.st_mtime_ns, after.st_ino) == (SMALL["PNG"].getvalue(), before.st_mtime_ns, before.st_ino)
    assert os.listdir(tmp_path) == ["a.png"]  # noqa: PTH208


def test_any_flipped_png_byte_is_noticed(tmp_path: Path) -> None:
    whole = SMALL["PNG"].getvalue()
    end = len(whole) - 12  # the closing chunk holds nothing of the picture
    for at in range(end):
        (tmp_path / "a.png").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert loaded(tmp_path / "a.png") is None, at


@few
@given(st.data())
def test_damaged_png_is_refused_or_the_same(data: st.DataObject) -> None:
    """Checksums make a PNG all or nothing."""
    raw = bytearray(SMALL["PNG"].getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(raw)
        picture = loaded(path)
        assert picture is None or np.array_equal(pixels(picture), COLOURS)


@few
@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=0, max_size=4)), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_mutated_bytes_load_or_are_refused(kind: str, edits: list[tuple[int, bytes]], size: int) -> None:
    raw = bytearray(SMALL[kind].getvalue())
    for at, new in edits:
        raw[at % len(raw) : at % len(raw) + 2] = new
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jpg"
        path.write_bytes(raw)
        picture = loaded(path, size)
        assert picture is None or (picture.shape, picture.dtype) == ((3, size, size), torch.uint8)


def test_constant_pictures_are_found() -> None:
    images = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    images[1] = torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1)  # one colour, not grey
    images[2, 2, 3, 3] = 1  # black but for one value
    images[3] = torch.arange(16, dtype=torch.uint8).view(4, 4)
    images[4] = 255
    assert constant_pictures(images).tolist() == [True, True, False, False, True]
    assert constant_pictures(images.float()).tolist() == [True, True, False, False, True]
    assert constant_pictures(images[:0]).shape == (0,)


def test_content_key_follows_content_and_nothing_else() -> None:
    images = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    key = content_key(images, "64px", "vae-1")
    assert len(key) == 64
    assert int(key, 16) >= 0
    assert key == content_key(images.clone(), "64px", "vae-1")
    assert key == content_key(images.transpose(2, 3).contiguous().transpose(2, 3), "64px", "vae-1")  # layout in memory
    edited = images.clone()
    edited[0, 0, 0, 0] += 1
    others = [
        content_key(edited, "64px", "vae-1"),
        content_key(images.view(1, 3, 2, 8), "64px", "vae-1"),
        content_key(images, "64px", "vae-2"),
        content_key(images, "64pxvae-1"),
        content_key(images, "64px", "vae-1", ""),
        content_key(images),
        content_key(images[:0]),
    ]
    assert len({key, *others}) == 8
    with pytest.raises(TypeError, match="uint8"):
        content_key(images.float())
