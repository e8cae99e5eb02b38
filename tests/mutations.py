"""Valid pictures and texts of many kinds, and ways to damage them. Input `index` of a seed is always the same bytes."""

from __future__ import annotations

import codecs
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

PICTURES = ("png", "jpeg", "webp", "gif", "tiff", "bmp")
TEXTS = ("caption", "metadata", "concepts", "prompts", "yaml")
MAGIC = b"\x89PNG\r\n\x1a\n"
STARTS = (
    MAGIC,
    b"\xff\xd8\xff\xe0",
    b"RIFF\x10\0\0\0WEBP",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"BM",
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF8,
)
"""What files of a kind begin with."""
SIZES = (0, 1, 2, 255, 8000, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Numbers at which sizes, counts and offsets go wrong."""
PIECES = [
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x90\xbb",
        b"\xe2\x80\xa8",
        b"\x1b[31m",
        b"\r",
        b"\n",
        b"\t",
        b'"',
        b"\\",
        b"{",
        b"[",
    ),
    *(b"../", b"/", b"C:\\", b"~", b"\\ud800", b"\\u0000", b"1e999", b"NaN", b"9" * 400, b"[" * 3000, b"null", b"true", b"-", b"#"),
    *(
        b"&a [*a]",
        b"!!python/object/apply:os.getcwd []",
        b"!!bool x",
        b"!!timestamp x",
        b"2020-13-45",
        b"<<: 3",
        b"? [x]",
        b"=",
        b",",
    ),
]
"""What readers of text stumble over."""


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind.upper(), **options)
    return out.getvalue()


@cache
def picture_seeds() -> dict[str, list[bytes]]:
    """Valid pictures of every format: modes, depths, transparency, several frames, EXIF, text, compressions."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    rgba = Image.fromarray(rng.integers(0, 256, (9, 13, 4), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (9, 13), dtype=np.uint16))
    real = Image.fromarray(rng.random((9, 13), dtype=np.float32))
    palette, grey, bit = rgb.quantize(16), rgb.convert("L"), rgb.convert("1")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "duration": 50}
    smooth = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    return {
        "png": [
            *(_saved(image, "png") for image in (rgb, rgba, deep, palette, grey, bit, grey.convert("LA"))),
            _saved(palette, "png", transparency=3),
            _saved(rgb, "png", exif=exif, dpi=(72, 72), icc_profile=b"not a profile"),
            _saved(rgb, "png", **frames),
        ],
        "jpeg": [
            *(_saved(image, "jpeg") for image in (rgb, grey, smooth, rgb.convert("CMYK"))),
            _saved(smooth, "jpeg", progressive=True, exif=exif, comment=b"a comment"),
            _saved(smooth, "jpeg", subsampling=2, restart_marker_blocks=2),
        ],
        "webp": [
            _saved(rgb, "webp"),
            _saved(rgba, "webp", lossless=True),
            _saved(smooth, "webp", exif=exif),
            _saved(rgb, "webp", **frames),
        ],
        "gif": [
            _saved(rgb, "gif"),
            _saved(palette, "gif", transparency=1),
            _saved(rgb, "gif", **frames),
            _saved(smooth, "gif", interlace=1),
        ],
        "tiff": [
            *(_saved(image, "tiff") for image in (rgb, rgba, deep, real, bit, rgb.convert("CMYK"))),
            *(_saved(rgb, "tiff", compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
            _saved(rgb, "tiff", exif=exif, save_all=True, append_images=[rgb]),
        ],
        "bmp": [_saved(image, "bmp") for image in (rgb, rgba, palette, grey, bit)],
    }


def _text_seeds() -> dict[str, list[bytes]]:
    rows = [{"file_name": "input.png", "text": "ein Bär 🐻"}, {"file_name": "sub/b.png"}, {"file_name": "input.png", "text": None}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    concepts = "\ufeff# held back\nmushroom\nstyle:openmoji = 2.5\n a  red car = 1, my cars/a\n"
    config = "model: tiny\nconcept: [mushroom, 'style:noto']\noptions: {steps: 3, esd: {steps: 2}}\nbalance: &b [1, 2]\nagain: *b\n"
    return {
        "caption": ["a thing".encode(codec) for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be")] + ["ein Bär\n🐻".encode()],
        "metadata": [lines.encode(codec) for codec in ("utf-8", "utf-8-sig", "utf-16")],
        "concepts": [concepts.encode(), b"ant\nowl = 3\n"],
        "prompts": ["a fox\n# no\n\nthe sea, ü\n".encode()],
        "yaml": [config.encode(), b"{a: 1, b: [x, y], when: 2020-01-02, n: ~}"],
    }


SEEDS: dict[str, list[bytes]] = {**picture_seeds(), **_text_seeds()}


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and data of a PNG's chunks."""
    at, chunks = len(MAGIC), []
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _png_edit(data: bytes, rng: random.Random) -> bytes:
    """A PNG whose chunks are edited and whose checksums are right, so that the edit is what is read."""
    chunks = _chunks(data)
    at = rng.randrange(len(chunks))
    name, body = chunks[at]
    act = rng.randrange(7)
    if act == 0:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks.pop(at))
    elif act == 1:
        chunks.insert(at, (name, body))
    elif act == 2:
        chunks[at] = (name, body[: rng.randrange(len(body) + 1)])
    elif act == 3:
        head = bytearray(chunks[0][1].ljust(13, b"\0"))
        field = rng.choice([0, 4])
        head[field : field + 4] = struct.pack(">I", rng.choice(SIZES))
        chunks[0] = (b"IHDR", bytes(head))
    elif act == 4:
        head = bytearray(chunks[0][1].ljust(13, b"\0"))
        head[rng.randrange(8, 13)] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
        chunks[0] = (b"IHDR", bytes(head))
    elif act == 5:
        text = zlib.compress(bytes(rng.choice([10, 100_000, 30_000_000])))
        extra = rng.choice(
            [(b"zTXt", b"k\0\0" + text), (b"iTXt", b"k\0\1\0\0\0" + text), (b"iCCP", b"k\0\0" + text), (b"eXIf", body)]
        )
        chunks.insert(1, extra)
    else:
        chunks[at] = (name, _bytes_edit(body, rng))
    form = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    return MAGIC + b"".join(form)


def _bytes_edit(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, a cut, a slice taken out, doubled or from elsewhere, a run of one byte, or a number where a size may be."""
    raw = bytearray(data or b"\0")
    at, length = rng.randrange(len(raw)), rng.choice([1, 2, 4, 8, 64, 1000])
    act = rng.randrange(8)
    if act == 0:
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif act == 1:
        del raw[at:]
    elif act == 2:
        del raw[at : at + length]
    elif act == 3:
        raw[at:at] = raw[at : at + length] * rng.choice([1, 2, 50])
    elif act == 4:
        other = rng.choice(SEEDS[rng.choice(PICTURES)]) if rng.random() < 0.5 else data
        start = rng.randrange(len(other) or 1)
        raw[at : at + length] = other[start : start + length]
    elif act == 5:
        raw[at : at + length] = bytes([rng.choice([0, 0xFF, 0x20, rng.randrange(256)])]) * length
    else:  # sizes are mostly near the start
        at = rng.randrange(min(len(raw), 64)) if act == 6 else at
        form = rng.choice([">H", "<H", ">I", "<I"])
        value = rng.choice(SIZES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
        raw[at : at + struct.calcsize(form)] = struct.pack(form, value)
    return bytes(raw)


def _text_edit(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(PIECES) * rng.choice([1, 1, 1, 3]) + data[rng.randint(at, min(len(data), at + 6)) :]


def mutated(seed: int, index: int, kinds: list[str]) -> tuple[str, bytes]:
    """Input `index`: its kind, and a valid file of it that is damaged one to four times."""
    rng = random.Random(f"{seed}/{index}")
    kind = kinds[index % len(kinds)]
    data = rng.choice(SEEDS[kind])
    for _ in range(rng.choice([1, 1, 2, 4])):
        edits: list[Callable[[bytes, random.Random], bytes]] = [_bytes_edit]
        if kind == "png" and data.startswith(MAGIC) and len(data) > 20:
            edits += [_png_edit] * 3
        if kind in TEXTS:
            edits += [_text_edit] * 3
        data = rng.choice(edits)(data, rng)
    if rng.random() < 0.02:
        data = rng.choice(STARTS) + data[rng.randrange(16) :]
    return kind, data
