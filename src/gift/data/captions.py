"""Captions from files that people write: `.txt` beside a picture, or one `metadata.jsonl` for a folder."""

from __future__ import annotations

import codecs
import json
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from gift.data.images import ACCEPTED
from gift.errors import GiftError, shown

METADATA = "metadata.jsonl"
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_text(path: Path) -> str:
    """Text in UTF-8, with or without a byte order mark, or in UTF-16 with one. Nothing is guessed.

    Raises:
        GiftError: the file can't be read, or is in another encoding; the first wrong byte is named.
    """
    try:
        if not path.is_file():
            raise GiftError(f"{shown(path)}: is not a regular file; replace it by a text file")
        data = path.read_bytes()
    except OSError as error:
        raise GiftError(f"{shown(path)}: can't be read ({error.strerror or error}); check the permissions") from error
    mark, codec = next(((mark, codec) for mark, codec in MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(codec)
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        raise GiftError(f"{shown(path)}: byte {at} (0x{data[at]:02x}) is not {codec.upper()}; save the file as UTF-8") from error
    if "\0" in text:  # UTF-16 without its mark, UTF-32, or no text at all
        at = len(mark) + len(text[: text.index("\0")].encode(codec))
        raise GiftError(f"{shown(path)}: byte {at} (0x00) is not text in {codec.upper()}; save the file as UTF-8")
    return text


def one_line(text: str) -> str:
    """A caption with every run of white space, line ends included, made one blank."""
    return " ".join(text.split())


def same_name(text: str) -> str:
    """The key under which names that look alike are one: macOS writes 'é' as two characters, others as one."""
    return normalize("NFC", text)


def read_metadata(folder: Path) -> list[tuple[Path, str]]:
    """The pictures and captions that a folder's `metadata.jsonl` lists, in the order of its lines.

    Each line is a JSON object with `file_name`, relative to the folder, and `text`; an absent or null text is "". Linked files
    are followed, as hub caches and hand-picked sets consist of them; linked folders that lie elsewhere are not.

    Returns:
        (picture, caption) for each line; the pictures exist.

    Raises:
        GiftError: a line is no such object, a path leads out of the folder, or there is no such picture.
    """
    where = folder / METADATA
    rows: list[tuple[Path, str]] = []
    missing: list[tuple[int, str]] = []
    for number, line in enumerate(read_text(where).split("\n"), 1):  # splitlines() would cut at U+2028 inside a caption
        if not line.strip():
            continue
        name, caption = _row(f"{shown(where)} line {number}", line)
        path = next((folder / n for n in (name, normalize("NFC", name), normalize("NFD", name)) if _is_file(folder / n)), None)
        if path is None:
            missing.append((number, name))
        elif not path.parent.resolve().is_relative_to(folder.resolve()):
            raise GiftError(
                f"{shown(where)} line {number}: {shown(name)} leads out of the folder through a link; give a path inside it"
            )
        else:
            rows.append((path, caption))
    if missing:
        number, name = missing[0]
        others = f"; {len(missing) - 1} more lines are wrong" if len(missing) > 1 else ""
        raise GiftError(
            f"{shown(where)} line {number}: expected {shown(folder / name)}, found {_nearby(folder, name)}{others}; "
            "write file_name relative to the folder"
        )
    return rows


def _row(where: str, line: str) -> tuple[str, str]:
    """file_name and caption of one line."""
    shape = '{"file_name": "a.png", "text": "a caption"}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        detail = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else "too deep or too long"
        raise GiftError(f"{where}: not JSON ({detail}); each line must look like {shape}") from error
    if not isinstance(row, dict):
        raise GiftError(f"{where}: not an object; each line must look like {shape}")
    name, text = row.get("file_name"), row.get("text")
    if not isinstance(name, str) or not name:
        raise GiftError(f"{where}: no file_name; each line must look like {shape}")
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise GiftError(f"{where}: text is not a string; each line must look like {shape}")
    for key, value in (("file_name", name), ("text", text)):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise GiftError(f"{where}: {key} holds a character that is not text (NUL or half a surrogate pair); correct it")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.root or ".." in windows.parts:
        raise GiftError(f"{where}: {shown(name)} leads out of the folder; give a path inside it")
    return name, one_line(text)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name too long to exist is a name that does not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _nearby(folder: Path, name: str) -> str:
    """What the folder holds in place of a missing picture: the same name elsewhere, else like names, else the first ones."""
    base = PureWindowsPath(name).name
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))]
    same = [str((place / base).relative_to(folder)) for place in places if base and _is_file(place / base)]
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in ACCEPTED)
    return ", ".join(shown(n) for n in same or get_close_matches(base, names, n=3) or names[:3]) or "no pictures"


def from_metadata(folder: Path, files: list[Path], skipped: dict[str, int], warnings: list[str]) -> list[tuple[Path, str]]:
    """Pictures that the metadata lists, and those it forgot with an empty caption."""
    listed = read_metadata(folder)
    names = {same_name(str(path)) for path, _ in listed}
    if len(names) < len(listed):
        warnings.append(f"{len(listed) - len(names)} lines of {METADATA} repeat a picture; each counts again")
    used = {path.relative_to(folder).parts[0] for path, _ in listed if path.parent != folder}
    skipped["subfolders"] -= sum(not name.startswith(".") for name in used)
    rest = [path for path in files if path.name != METADATA and same_name(str(path)) not in names]
    forgotten = [path for path in rest if path.suffix.lower() in ACCEPTED]
    skipped["other files"] = len(rest) - len(forgotten)
    return sorted(listed + [(path, "") for path in forgotten], key=lambda row: row[0])


def from_texts(files: list[Path], skipped: dict[str, int], warnings: list[str]) -> list[tuple[Path, str]]:
    """Pictures with the text of the same stem, or an empty caption."""
    pictures = [path for path in files if path.suffix.lower() in ACCEPTED]
    texts: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() == ".txt":
            texts.setdefault(same_name(path.stem), path)
    users: dict[Path, list[str]] = {}
    rows = []
    for path in pictures:
        text = texts.get(same_name(path.stem))
        if text is not None:
            users.setdefault(text, []).append(path.name)
        rows.append((path, one_line(read_text(text)) if text is not None else ""))
    shared = [f"{' and '.join(names)}: {text.name}" for text, names in users.items() if len(names) > 1]
    if shared:
        warnings.append(f"{len(shared)} caption files serve several pictures ({some(shared)}); rename the pictures if unwanted")
    if any(path.name == "metadata.csv" for path in files):
        warnings.append(f"metadata.csv is not read; give captions in {METADATA} or .txt files")
    skipped["other files"] = len(files) - len(pictures) - len(users)
    return rows


def some(names: list[str]) -> str:
    """The first five names and how many more."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shown(name) for name in names[:5]) + more
