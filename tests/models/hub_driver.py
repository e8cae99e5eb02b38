"""Asks, and prints what came of it: in a process of its own, since the hub's library reads its endpoint when it is imported."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub.utils import _http
from typer.testing import CliRunner

from gift.cli.main import app
from gift.errors import GiftError
from gift.models import load
from gift.models.hub import push


def outcome(ask: dict[str, str | None]) -> str:
    """The one line that an ask ends in."""
    given = {key: value for key, value in ask.items() if key not in ("do", "token")}
    os.environ["HF_TOKEN"] = ask.get("token") or ""
    try:
        if ask["do"] == "load":
            return f"opened {load(**given, device='cpu').describe()}"  # type: ignore[arg-type]
        if ask["do"] == "push":
            return f"sent {push(given.pop('folder') or '', given.pop('name') or '', without_card=bool(given.pop('bare', None)))}"
        done = CliRunner().invoke(app, (ask["line"] or "").split())
        return f"{done.exit_code} {done.stderr}{done.stdout}".strip()
    except GiftError as error:
        return str(error)


if __name__ == "__main__":
    waits: list[float] = []  # before the library's retries: not waited for, but counted
    _http.time = SimpleNamespace(sleep=waits.append)  # type: ignore[assignment]
    found = []
    for ask in json.loads(Path(sys.argv[1]).read_text()):
        waits.clear()
        began = time.monotonic()
        found.append([outcome(ask), time.monotonic() - began + sum(waits)])
    print(json.dumps(found))
