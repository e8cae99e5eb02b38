"""Field failures 1, 2, 6 to 11, 13 and 19: picture folders as users have them."""

from __future__ import annotations

import codecs
import json
import os
import tempfile
from pathlib import Path
from unicodedata import normalize

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift.data.captions import one_line, read_text
from gift.data.folder import FolderScan, load_folder, scan_folder
from gift.errors import GiftError


def draw(path: Path, colour: tuple[int, int, int] | None = None) -> Path:
    """A small picture file; a ramp unless a colour is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = Image.linear_gradient("L").resize((12, 10)).convert("RGB")
    (ramp if colour is None else Image.new("RGB", (12, 10), colour)).save(path)
    return path


def rows(folder: Path, *lines: object) -> Path:
    """metadata.jsonl of given lines; strings are written as they are."""
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def scan(folder: Path, default_caption: str | None = "a thing", skip_bad_images: bool = False) -> FolderScan:
    return scan_folder(folder, default_caption=default_caption, skip_bad_images=skip_bad_images)


def told(result: FolderScan) -> list[tuple[str, str]]:
    return [(picture.path.name, picture.caption) for picture in result.pictures]


def refused(folder: Path, *words: str, default_caption: str | None = "a thing", skip_bad_images: bool = False) -> str:
    with pytest.raises(GiftError) as caught:
        scan(folder, default_caption, skip_bad_images)
    message = str(caught.value)
    assert message.isprintable()
    for word in words:
        assert word in message
    return message


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_plain_folder_is_sorted_and_gets_the_default_caption(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.webp", "B.png", "10.png", "9.png", "d.gif", "e.tif", "f.bmp", "g.jpeg", "h.jfif"):
        path = tmp_path / name
        ramp = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
        ramp.save(path, "JPEG" if path.suffix in (".JPG", ".jfif") else None)
    result = scan(tmp_path)
    names = ["10.png", "9.png", "B.png", "a.JPG", "b.png", "c.webp", "d.gif", "e.tif", "f.bmp", "g.jpeg", "h.jfif"]
    assert told(result) == [(name, "a thing") for name in names]
    assert (result.uncaptioned, result.bad, result.warnings) == (11, [], [])
    assert result.skipped == {"hidden": 0, "subfolders": 0, "other files": 0}
    assert result.summary() == "11 pictures; 11 with the default caption"


def test_hidden_entries_subfolders_and_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("an apple")
    draw(tmp_path / ".ipynb_checkpoints" / "a.png")
    draw(tmp_path / "._a.png")
    draw(tmp_path / "train" / "b.png")
    (tmp_path / "looks-like.png").mkdir()
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("not a caption")
    result = scan(tmp_path)
    assert told(result) == [("a.png", "an apple")]
    assert result.skipped == {"hidden": 2, "subfolders": 2, "other files": 2}
    assert result.uncaptioned == 0
    assert result.summary() == "1 pictures; 0 with the default caption; skipped 2 hidden, 2 subfolders, 2 other files"


def test_texts_beside_pictures(tmp_path: Path) -> None:
    draw(tmp_path / "a.b.png")
    (tmp_path / "a.b.txt").write_text("  two\r\n lines\t here \n")
    draw(tmp_path / "c.png")
    (tmp_path / "c.TXT").write_text("upper")
    draw(tmp_path / normalize("NFD", "é.png"))
    (tmp_path / normalize("NFC", "é.txt")).write_text("accent")
    result = scan(tmp_path, None)
    assert sorted(caption for _, caption in told(result)) == ["accent", "two lines here", "upper"]
    assert (result.uncaptioned, result.skipped["other files"]) == (0, 0)


def test_missing_and_empty_captions_are_counted_or_refused(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        draw(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("an apple")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.txt").write_bytes(codecs.BOM_UTF8 + b" \n\t")
    result = scan(tmp_path, "fruit")
    assert told(result) == [("a.png", "an apple"), ("b.png", "fruit"), ("c.png", "fruit"), ("d.png", "fruit")]
    assert result.uncaptioned == 3
    assert scan(tmp_path, "").pictures[3].caption == ""  # an empty default is a choice, None is not
    refused(tmp_path, "3 of 4 pictures", "b.png, c.png, d.png", ".txt", "default caption", default_caption=None)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_in_marked_encodings(tmp_path: Path, codec: str) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ein Bär 🐻 im Schnee", codec)
    assert told(scan(tmp_path, None)) == [("a.png", "ein Bär 🐻 im Schnee")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("ein Bär".encode("cp1252"), ("byte 5 (0xe4)", "UTF-8")),
        (codecs.BOM_UTF8 + b"a\xff", ("byte 4 (0xff)",)),
        ("a cat".encode("utf-16-le"), ("byte 1 (0x00)",)),  # UTF-16 without its mark is valid UTF-8, full of NULs
        (codecs.BOM_UTF16_LE + b"a\0b", ("byte 4 (0x62)", "UTF-16-LE")),
        (codecs.BOM_UTF16_BE + b"\0a\xdc\x00", ("byte 4 (0xdc)", "UTF-16-BE")),
        (codecs.BOM_UTF16_LE + b"a\0\0\0", ("byte 4 (0x00)",)),
        ("a cat".encode("utf-32"), ("byte 2 (0x00)",)),
        ("ää\0".encode(), ("byte 4 (0x00)",)),
    ],
)
def test_caption_in_another_encoding_names_file_and_byte(tmp_path: Path, data: bytes, words: tuple[str, ...]) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(data)
    refused(tmp_path, f"{tmp_path}/a.txt: ", "save the file as UTF-8", *words)


def test_caption_that_is_no_file(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.txt")
    refused(tmp_path, "a.txt: is not a regular file")


def test_caption_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("x")

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(tmp_path, "a.txt: can't be read (Permission denied)")


def test_two_pictures_on_one_text_give_one_warning(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png", "b.jpg", "c.png"):
        draw(tmp_path / name)
        (tmp_path / f"{name[0]}.txt").write_text(f"caption {name[0]}")
    result = scan(tmp_path, None)
    assert told(result)[:2] == [("a.jpg", "caption a"), ("a.png", "caption a")]
    assert len(result.warnings) == 1
    assert "2 caption files" in result.warnings[0]
    assert "a.jpg and a.png: a.txt" in result.warnings[0]


def test_metadata_captions(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "sub dir/ü.png", "forgotten.png"):
        draw(tmp_path / name)
    draw(tmp_path / "other" / "x.png")
    (tmp_path / "a.txt").write_text("ignored: metadata decides")
    lines = (
        {"file_name": "sub dir/ü.png", "text": "an\u2028ü"},
        "",
        "  \r",
        {"file_name": "./b.png"},
        {"file_name": "a.png", "text": "A"},
    )
    rows(tmp_path, *lines)
    result = scan(tmp_path, "fruit")
    assert told(result) == [("a.png", "A"), ("b.png", "fruit"), ("forgotten.png", "fruit"), ("ü.png", "an ü")]
    assert result.uncaptioned == 2
    assert result.skipped == {"hidden": 0, "subfolders": 1, "other files": 1}
    refused(tmp_path, "2 of 4", "b.png, forgotten.png", "metadata.jsonl", default_caption=None)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_metadata_encodings_and_composed_names(tmp_path: Path, codec: str) -> None:
    draw(tmp_path / normalize("NFD", "é.png"))
    line = json.dumps({"file_name": normalize("NFC", "é.png"), "text": "ü\u2028ü"}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(line, codec)
    result = scan(tmp_path, None)
    assert [picture.caption for picture in result.pictures] == ["ü ü"]  # U+2028 does not cut the line


def test_metadata_that_repeats_a_picture(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    rows(tmp_path, {"file_name": "a.png", "text": "first"}, {"file_name": "./a.png", "text": "second"})
    result = scan(tmp_path, None)
    assert told(result) == [("a.png", "first"), ("a.png", "second")]
    assert result.warnings == ["1 lines of metadata.jsonl repeat a picture; each counts again"]
    assert load_folder(tmp_path, size=4, default_caption=None)[0].shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images/a.png", "found a.png;"),
        ("images\\a.png", "found a.png;"),
        ("b.png", "found sub/b.png;"),
        ("A.PNG", "found a.png, cat_2.png;"),
        ("cat_1.png", "found cat_2.png, a.png;"),
        ("x" * 300, "found a.png, cat_2.png;"),
        (".", "found a.png, cat_2.png;"),
    ],
)
def test_metadata_with_a_wrong_path_shows_expected_and_found(tmp_path: Path, name: str, found: str) -> None:
    for known in ("a.png", "cat_2.png", "sub/b.png"):
        draw(tmp_path / known)
    rows(tmp_path, {"file_name": "a.png", "text": "A"}, {"file_name": name, "text": "B"}, {"file_name": "gone.png"})
    refused(tmp_path, f"metadata.jsonl line 2: expected {tmp_path / name}, ", found, "; 1 more lines are wrong; ")


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "..\\secret.png", "\\secret.png", "C:\\secret.png"])
def test_metadata_may_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "secret.png")
    draw(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "sub").mkdir()
    rows(tmp_path / "set", {"file_name": name, "text": "x"})
    refused(tmp_path / "set", "line 1", "leads out of the folder")
    rows(tmp_path / "set", {"file_name": str(tmp_path / "secret.png"), "text": "x"})
    refused(tmp_path / "set", "leads out of the folder")


@pytest.mark.parametrize("name", ["link/secret.png", "inner/link/secret.png", "up/secret.png"])
def test_metadata_may_not_lead_out_through_a_linked_folder(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "secret.png")
    draw(tmp_path / "set" / "inner" / "a.png")
    for link in ("set/link", "set/inner/link", "set/up"):
        (tmp_path / link).symlink_to(tmp_path)
    rows(tmp_path / "set", {"file_name": name, "text": "x"})
    refused(tmp_path / "set", "metadata.jsonl line 1", f"{name} leads out of the folder through a link")


def test_linked_files_are_read_as_in_a_hub_cache(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    (folder / "sub").mkdir(parents=True)
    for blob, name in (("1", "a.png"), ("2", "sub/b.png")):
        draw(tmp_path / "blob.png").rename(tmp_path / blob)
        (folder / name).symlink_to(tmp_path / blob)
    rows(tmp_path, {"file_name": "a.png", "text": "A"}, {"file_name": "sub/b.png", "text": "B"}).rename(tmp_path / "3")
    (folder / "metadata.jsonl").symlink_to(tmp_path / "3")
    (folder / "inside").symlink_to(folder / "sub")  # a linked folder that stays inside
    assert told(scan(folder, None)) == [("a.png", "A"), ("b.png", "B")]
    rows(tmp_path, {"file_name": "inside/b.png", "text": "B"}).rename(tmp_path / "3")
    assert [caption for _, caption in told(scan(folder, ""))] == ["", "B"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"file_name": "a.png", "text": "x"', "not JSON (Expecting ',' delimiter at character"),
        ("a.png\tcaption", "not JSON"),
        ("[" * 100_000, "not JSON (too deep"),
        ('{"file_name": "a.png", "n": ' + "9" * 5000 + "}", "not JSON (too deep"),
        ('["a.png", "x"]', "not an object"),
        ("null", "not an object"),
        ('{"image": "a.png", "text": "x"}', "no file_name"),
        ('{"file_name": "", "text": "x"}', "no file_name"),
        ('{"file_name": 3, "text": "x"}', "no file_name"),
        ('{"file_name": "a.png", "text": ["x"]}', "text is not a string"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "text holds a character"),
        ('{"file_name": "a\\u0000.png", "text": "x"}', "file_name holds a character"),
    ],
)
def test_broken_metadata_line_is_named(tmp_path: Path, line: str, word: str) -> None:
    draw(tmp_path / "a.png")
    rows(tmp_path, {"file_name": "a.png", "text": "A"}, "", line)
    message = refused(tmp_path, f"{tmp_path}/metadata.jsonl line 3: ", word)
    assert len(message) < 400


def test_unread_formats_and_csv_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    for name in ("b.heic", "c.AVIF", "metadata.csv"):
        (tmp_path / name).write_bytes(b"x")
    result = scan(tmp_path)
    assert len(result.warnings) == 2
    assert "metadata.csv is not read" in result.warnings[0]
    assert "2 pictures in formats that are not read (b.heic, c.AVIF)" in result.warnings[1]
    assert result.skipped["other files"] == 3


@pytest.mark.parametrize("default_caption", ["x", None])
def test_no_images(tmp_path: Path, default_caption: str | None) -> None:
    accepted = "accepted: .bmp, .gif, .jfif, .jpeg, .jpg, .png, .tif, .tiff, .webp"
    for name, why in ((".", "none found"), ("gone", "no such folder"), ("file.png", "it is a file")):
        if name == "file.png":
            draw(tmp_path / name)
        message = refused(tmp_path / name, accepted, why, default_caption=default_caption)
        assert message.startswith(f"0 images in {tmp_path / name}: ")
    (tmp_path / "file.png").unlink()
    draw(tmp_path / "train" / "a.png")
    (tmp_path / "notes.md").write_text("x")
    refused(tmp_path, "0 images", "(skipped 1 subfolders, 1 other files)", default_caption=default_caption)


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    refused(tmp_path, "0 images", "Permission denied")


def broken(folder: Path, count: int) -> list[str]:
    whole = draw(folder / "whole.jpg").read_bytes()
    names = [f"bad{i}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(b"" if i == 0 else whole[: len(whole) - 60 - i])
    return names


def test_every_bad_picture_is_listed_and_stops(tmp_path: Path) -> None:
    broken(tmp_path, 7)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    message = refused(tmp_path, f"8 pictures in {tmp_path} can't be used", "bad0.jpg is empty (0 bytes)", "bad4.jpg", "and 3 more")
    assert "bad5" not in message
    with pytest.raises(GiftError, match="8 pictures"):
        load_folder(tmp_path, size=4, default_caption="x")


def test_bad_pictures_are_left_out_on_request(tmp_path: Path) -> None:
    names = broken(tmp_path, 7)
    before = snapshot(tmp_path)
    images, captions, result = load_folder(tmp_path, size=4, default_caption="x", skip_bad_images=True)
    assert (images.shape, captions) == ((1, 3, 4, 4), ["x"])
    assert [path.name for path, _ in result.bad] == names
    assert "empty" in result.bad[0][1]
    assert "truncated" in result.bad[1][1].lower()
    assert result.uncaptioned == 1  # of the pictures that are used
    assert "7 unreadable left out" in result.summary()
    assert snapshot(tmp_path) == before
    (tmp_path / "whole.jpg").unlink()
    refused(tmp_path, "0 images in", "all 7 are unreadable", "and 2 more", skip_bad_images=True)


def test_bad_picture_needs_no_caption(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("an apple")
    (tmp_path / "bad.png").write_bytes(b"")
    assert told(scan(tmp_path, None, True)) == [("a.png", "an apple")]


def test_load_folder_gives_pictures_in_the_order_of_captions(tmp_path: Path) -> None:
    folder = tmp_path / "Ordner mit 猫 und Leerzeichen"
    for value, name in ((30, "c 猫.png"), (10, "a b.png"), (20, "ß.png")):
        draw(folder / name, (value, 0, 255 - value))
        (folder / name).with_suffix(".txt").write_text(f"caption {value}", "utf-8")
    before = snapshot(folder)
    images, captions, result = load_folder(folder, size=5, default_caption=None)
    assert (images.shape, images.dtype) == ((3, 3, 5, 5), torch.uint8)
    assert captions == ["caption 10", "caption 30", "caption 20"]
    assert images[:, 0, 0, 0].tolist() == [10, 30, 20]
    assert [picture.caption for picture in result.pictures] == captions
    assert snapshot(folder) == before
    again = load_folder(folder, size=5, default_caption=None)
    assert torch.equal(images, again[0])


def test_single_colour_pictures_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", (0, 0, 0))
    draw(tmp_path / "c.jpg", (0, 0, 0))
    _, _, result = load_folder(tmp_path, size=8, default_caption="x")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("2 of 3 pictures are one single colour (b.png, c.jpg)")
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.jpg").unlink()
    assert load_folder(tmp_path, size=8, default_caption="x")[2].warnings == []


def test_size_must_be_positive(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(GiftError, match="size of 1 or more"):
        load_folder(tmp_path, size=0, default_caption="x", skip_bad_images=True)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=40)


@settings(max_examples=40, deadline=None)
@given(words, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]))
def test_caption_round_trip(text: str, codec: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes((codecs.BOM_UTF16_BE if codec == "utf-16-be" else b"") + text.encode(codec))
        assert read_text(path) == text
        assert one_line(read_text(path)) == " ".join(text.split())


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=30))
def test_any_bytes_are_text_or_refused_at_a_byte_that_exists(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes(data)
        try:
            text, message = read_text(path), ""
        except GiftError as error:
            text, message = "", str(error)
    if message:
        at = int(message.split("byte ")[1].split(" ")[0])
        assert f"byte {at} (0x{data[at]:02x})" in message
        return
    utf16 = {codecs.BOM_UTF16_LE + text.encode("utf-16-le"), codecs.BOM_UTF16_BE + text.encode("utf-16-be")}
    assert data in {text.encode("utf-8"), text.encode("utf-8-sig"), *utf16}


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=6),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["file_name", "text", "x"]), x, max_size=3),
        max_leaves=5,
    )
)
def test_any_metadata_line_is_read_or_refused(line: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "a.png")
        (folder / "metadata.jsonl").write_text(json.dumps(line))
        with pytest.raises(GiftError, match=r"metadata\.jsonl line 1: ") as caught:
            scan(folder)
        assert str(caught.value).isprintable()
