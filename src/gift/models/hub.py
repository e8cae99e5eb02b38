"""The model hub: its faults told apart in one line each, and a saved model sent to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gift.errors import GiftError

HUB_ID = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?$")
INDEX = "model_index.json"
CARD = "README.md"
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
"""Packages whose errors mean that a connection failed; which one it is depends on the hub's library."""
LOGIN = "log in with 'hf auth login'"


def parse_hub_id(name: str) -> tuple[str, str | None] | None:
    """Reads 'owner/name' or 'owner/name@revision'; None for anything else."""
    found = HUB_ID.match(name)
    return None if found is None or name.startswith((".", "/", "~")) else (found["id"], found["revision"])


@contextmanager
def explained(name: str, revision: str | None = None, *, sending: bool = False) -> Iterator[None]:
    """Turns what the hub, the network or the hub's library raise inside the block into one line.

    Args:
        name: 'owner/name'.
        revision: that is asked for.
        sending: whether something is sent, or fetched.

    Raises:
        GiftError: what is wrong, and the remedy.
    """
    try:
        yield
    except GiftError:
        raise
    except Exception as error:
        line = _line(name, revision, error, sending)
        if line is None:
            raise
        raise GiftError(line) from error


def _line(name: str, revision: str | None, error: Exception, sending: bool) -> str | None:
    """What to say of an error; None where it is neither the hub's nor the network's."""
    from huggingface_hub import errors as hub

    if isinstance(error, hub.LocalEntryNotFoundError) and isinstance(error.__cause__, hub.HfHubHTTPError):
        error = error.__cause__  # what the hub had said before the cache was looked into
    absent = f"can't write to {name}" if sending else f"no model '{name}' on the hub, or it is private"
    lines: dict[type[Exception], str] = {  # the more special ones first
        hub.GatedRepoError: f"{name} is gated: accept its licence on its page, then {LOGIN}",
        hub.DisabledRepoError: f"{name} was disabled by the hub; choose another model",
        hub.RepositoryNotFoundError: f"{absent}: check the name, or {LOGIN}",
        hub.RevisionNotFoundError: f"{name} has no revision '{revision}'; leave it out for the default, or name another",
        hub.OfflineModeIsEnabled: f"{name} can't be reached: HF_HUB_OFFLINE=1 is set; unset it, or use what is cached",
        hub.LocalEntryNotFoundError: _unreached(name, error),
        hub.EntryNotFoundError: f"{name} is not a diffusers model (a file is missing: {_first_line(error)}); name another",
        hub.HFValidationError: f"'{name}' is no name for a repository; use owner/name",
        hub.LocalTokenNotFoundError: f"no token for the hub: {LOGIN}",
        hub.HfHubHTTPError: _refused(name, error, sending),
        OSError: _unreached(name, error),
    }
    found = next((line for kind, line in lines.items() if isinstance(error, kind)), None)
    return _unreached(name, error) if found is None and type(error).__module__.partition(".")[0] in NETWORK else found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:160] if lines else type(error).__name__


def _unreached(name: str, error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, GiftError):
        cause = cause.__cause__
    reason = " ".join(str(cause).split())[:160] or type(cause).__name__
    near = Path(name).parent  # of what was meant for a folder here
    absent = f" ({near} is a folder here, without {Path(name).name} in it)" if near != Path() and near.is_dir() else ""
    return f"can't get {name}: {reason}; is it a local folder{absent}, or can the hub be reached?"


def _refused(name: str, error: Exception, sending: bool) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the hub doesn't know who asks for {name}: {LOGIN}"
    if status == 403:
        return f"no right to {'write to' if sending else 'read'} {name}: use a token that has it, or another name"
    if status == 413:
        return f"the hub finds {name} too large; save it with fewer or half-precision weights"
    if status == 429:
        return f"the hub has had too many requests from here ({name}); wait some minutes, then try again"
    if status is not None and status >= 500:
        return f"the hub fails with {status} for {name}; that is its own fault: try again later"
    return f"the hub refuses {name}: {_first_line(error)}; check the name and the token"


def push(
    folder: Path | str,
    name: str,
    *,
    private: bool = False,
    message: str = "Immunized with gift",
    without_card: bool = False,
) -> str:
    """Sends a saved model's folder to the hub; the repository, and the branch if one is named, are made where they are missing.

    Args:
        folder: what `gift immunize` or `DenoisingModel.save` wrote.
        name: 'owner/name', or 'owner/name@branch'.
        private: whether a new repository is.
        message: of the commit.
        without_card: send a folder that has no model card.

    Returns:
        The commit's address.

    Raises:
        GiftError: the folder is no whole diffusers model (an attacked model's LoRA files are refused), it has no card, or the hub
            can't be reached or refuses.
    """
    source = Path(folder)
    source = source / "model" if not (source / INDEX).exists() and (source / "model" / INDEX).exists() else source
    named = parse_hub_id(name)
    if named is None:
        raise GiftError(f"'{name}' is no name for a repository; use owner/name or owner/name@branch")
    if not source.is_dir():
        raise GiftError(f"no folder {source}; give one that 'gift immunize' wrote")
    if not (source / INDEX).exists():
        raise GiftError(f"{source} is not a diffusers model (no {INDEX}); only whole immunized models are sent")
    if not (source / CARD).exists() and not without_card:
        raise GiftError(f"{source} has no model card, so nobody could tell what it is: write one with 'gift card {source}'")
    from huggingface_hub import HfApi

    repository, branch = named
    api = HfApi()
    with explained(repository, branch, sending=True):
        api.create_repo(repository, private=private, exist_ok=True)
        if branch:
            api.create_branch(repository, branch=branch, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=source, commit_message=message, revision=branch)
    return str(done.commit_url)
