"""The model card of an immunized model: what was done, what was attacked, what is left of the risk; from records alone."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from gift.errors import GiftError
from gift.files import write_bytes, write_text
from gift.models.loading import TINY
from gift.report.card_text import Picture, card_text, public
from gift.report.evidence import Evidence, Sheet, read_evidence
from gift.report.made import Made, Match, match, model_folder, read_made
from gift.report.pictures import read_png

NAME = "README.md"
PICTURES = "card"
TAGS = ["gift", "immunization", "concept-erasure", "safety"]
MARK = re.compile(r"\n<!-- written by gift card; ([0-9a-f]{16}) -->\n\Z")
PICTURE = re.compile(rf"\]\(({PICTURES}/\d\d+-[a-z0-9-]*\.png)\)")
"""A link to a picture of a card, as `_pictures` names them."""
LICENCE = re.compile(r"^[a-z0-9][a-z0-9.+-]*$")


@dataclass(frozen=True)
class Written:
    """A card on the disk, and what its reader on the terminal should know."""

    path: Path
    notes: list[str]


def write_card(
    model: Path,
    *,
    evidence: Path | None = None,
    base_model: str | None = None,
    license: str | None = None,
    output: Path | None = None,
    force: bool = False,
) -> Written:
    """Writes a Hugging Face model card, and its pictures into `card/` beside it; takes away those of the card that it replaces.

    Args:
        model: a folder that `gift immunize` or `gift demo` saved.
        evidence: what `gift demo` or `gift bench` measured; None says on the card that nothing was.
        base_model: the base's name, for the hub its id; by default what the model's own record says.
        license: a licence id of the hub.
        output: where the card goes; `README.md` in the model's folder by default.
        force: replace a card that is not gift's own, or was changed since.

    Raises:
        GiftError: no model, evidence that can't be used or is about another model, a licence that is no id, or a card that would
            be lost.
    """
    folder = model_folder(model)
    path = output or folder / NAME
    if license is not None and not LICENCE.match(license.lower()):
        raise GiftError(f"'{license}' is not a licence id; give one such as apache-2.0, creativeml-openrail-m or other")
    earlier = _earlier(path, force)
    made = read_made(folder)
    measured = read_evidence(evidence) if evidence else None
    found = match(folder, made, measured) if measured else None
    base = _base(folder, made, base_model)
    data = _front_matter(made, base, license)
    drawn = _pictures(measured, found) if measured and found else []
    body = card_text(folder, made, base.name, data.get("license"), measured, found, [picture for picture, _ in drawn])
    text = str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
    for picture, content in drawn:
        write_bytes(path.parent / picture.link, content)
    write_text(path, f"{text}\n<!-- written by gift card; {_digest(text)} -->\n")
    _remove(path.parent, earlier - {picture.link for picture, _ in drawn})
    return Written(path, [*base.notes, *([] if data.get("license") else ["no licence on the card; give it by --license ID"])])


@dataclass(frozen=True)
class _Base:
    """The base model: its name as the text tells it, its id on the hub, and notes for the terminal."""

    name: str | None
    hub: str | None
    notes: list[str]


def _base(folder: Path, made: Made, given: str | None) -> _Base:
    """The base as given, or as the model's own record has it."""
    name = given or made.base
    if name is None:
        return _Base(None, None, ["nothing says what the base model is; name it by --base-model OWNER/NAME"])
    if _is_id(name) and (given or not _is_place(name, folder)):
        return _Base(name, name, [])
    shown = public(" ".join(name.split()))
    return _Base(
        shown, None, [f"'{shown}' is not an id of the hub, so the front matter names no base; --base-model OWNER/NAME does"]
    )


def _is_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _is_place(name: str, folder: Path) -> bool:
    """Whether a name from a record was no id: the bundled model, or a folder seen from here or from above the model."""
    return "/" not in name or any((place / name).exists() for place in (Path(), *folder.resolve().parents))


def _front_matter(made: Made, base: _Base, license_id: str | None) -> ModelCardData:
    data = ModelCardData(
        base_model=base.hub,
        base_model_relation="finetune" if base.hub else None,
        license=license_id.lower() if license_id else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=list(TAGS),
    )
    if license_id is None and made.base == "tiny" and base.name == "tiny" and (TINY / NAME).is_file():
        bundled = ModelCard.load(TINY / NAME).data
        data["license"], data["license_name"] = bundled.get("license"), bundled.get("license_name")
    return data


def _pictures(evidence: Evidence, found: Match) -> list[tuple[Picture, bytes]]:
    """The model's sheets; beside them the original's before any attack, and the undefended weights' under attack."""
    corners = {(cell.model, cell.concept) for cell in found.cells}

    def wanted(sheet: Sheet) -> bool:
        beside = evidence.original if sheet.attack is None else evidence.control
        return sheet.method in {found.label, beside}

    out: list[tuple[Picture, bytes]] = []
    for sheet in evidence.sheets:
        if wanted(sheet) and (sheet.model, sheet.concept) in corners:
            content = read_png(evidence.source.parent, sheet.file, evidence.listing, evidence.remedy)
            stem = re.sub(r"[^a-z0-9]+", "-", Path(sheet.file).stem.lower()).strip("-")[:60]
            out.append((Picture(f"{PICTURES}/{len(out) + 1:02d}-{stem}.png", sheet.alt, sheet.caption), content))
    return out


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _earlier(path: Path, force: bool) -> set[str]:
    """The pictures of gift's own card that is to be replaced; none where it is someone else's, or someone has written in it.

    Raises:
        GiftError: there is a card that is not gift's own, or was changed since, and it is not to be replaced.
    """
    if path.is_dir():
        raise GiftError(f"{path} is a folder; give --output a file")
    if not path.exists():
        return set()
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if force:
            return set()
        raise GiftError(f"can't read {path}, which would be replaced; choose another --output or add --force") from error
    mark = MARK.search(old)
    if mark is not None and mark[1] == _digest(old[: mark.start()]):
        return set(PICTURE.findall(old))
    if force:
        return set()
    if mark is None:
        raise GiftError(f"{path} was not written by gift; choose another --output or add --force to replace it")
    raise GiftError(f"{path} was changed after gift wrote it; choose another --output or add --force to replace it")


def _remove(folder: Path, links: set[str]) -> None:
    """Removes pictures of an earlier card, unless another text beside it shows them.

    Raises:
        GiftError: one can't be removed.
    """
    others = [file.read_text(encoding="utf-8", errors="replace") for file in folder.glob("*.md") if links and file.is_file()]
    for link in sorted(links):
        if any(link in text for text in others):
            continue
        try:
            (folder / link).unlink(missing_ok=True)
        except OSError as error:
            raise GiftError(f"can't remove {folder / link}: {error.strerror or error}; no card shows it, so delete it") from error
    if links:
        with suppress(OSError):  # there are other files in it
            (folder / PICTURES).rmdir()
