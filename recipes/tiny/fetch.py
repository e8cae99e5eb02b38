"""Fetches the drawings as npm packages, at pinned versions."""

from __future__ import annotations

import subprocess
import tarfile

from .config import SOURCES, WORK


def fetch() -> None:
    """Downloads and unpacks every package that is not there yet into `build/tiny/art/<style>`."""
    home = WORK / "art"
    home.mkdir(parents=True, exist_ok=True)
    for style, source in SOURCES.items():
        target = home / style
        if (target / "icons.json").exists():
            continue
        spec = f"@iconify-json/{source.package}@{source.version}"
        packed = subprocess.run(["npm", "pack", "--silent", spec], cwd=home, check=True, capture_output=True, text=True)
        archive = home / packed.stdout.strip().splitlines()[-1]
        target.mkdir(exist_ok=True)
        with tarfile.open(archive) as tar:
            for name in ("icons.json", "info.json"):
                member = tar.extractfile(f"package/{name}")
                if member is None:
                    raise FileNotFoundError(f"{spec} has no {name}")
                (target / name).write_bytes(member.read())
        archive.unlink()
        print(f"fetched {spec}")
