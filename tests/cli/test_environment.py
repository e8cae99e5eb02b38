"""Whole runs on names and machines as users have them (field failures 7, 8, 12, 13): any script, no terminal, no home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from errno import EACCES, ENAMETOOLONG, EROFS
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from gift.cli.main import app
from gift.models.sd import StableDiffusion

MODEL, PICTURES, SAFE, OUT = "mein Modell ß", "Bilder 猫 'ü'", "übrige", "Größe 猫"


@pytest.fixture
def world(random_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's model, pictures, prompts and configuration; nothing is plain ASCII."""
    random_model.save(tmp_path / MODEL)
    for folder in (PICTURES, SAFE):
        (tmp_path / folder / ".ipynb_checkpoints").mkdir(parents=True)
        for i, name in enumerate(("ein bild.png", "猫.png", ".ipynb_checkpoints/猫.png")):
            Image.effect_noise((20, 18 + i), 60).convert("RGB").save(tmp_path / folder / name)
    (tmp_path / PICTURES / "猫.txt").write_text("ein Bär 🐻", encoding="utf-8")
    (tmp_path / "wünsche.txt").write_text("ein Bär\n猫\n", encoding="utf-8")
    (tmp_path / "früh.yaml").write_text(yaml.safe_dump({"concept_images": PICTURES}, allow_unicode=True), encoding="utf-8")
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"steps": 1, "pictures": 2, "evaluation_pictures": 2}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file's bytes, mode and date."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in files}


def immunize(*more: str) -> list[str]:
    arguments = ["immunize", MODEL, "--concept", "ein roter Bär 猫", "--concept-images", PICTURES, "--safe-images", SAFE]
    return [*arguments, "--method", "ascent", "--set", "steps=1", *more]


def test_every_verb_leaves_the_users_files_alone(world: Path) -> None:
    before = tree(world)
    likeness = ["--concept", "ein roter Bär 猫", "--concept-images", PICTURES, "--similarity", "bundled"]
    (world / OUT / "sehen").mkdir(parents=True)
    look = {"pictures": 2, "safe_pictures": 4, "neighbour_pictures": 0, "original": MODEL}
    (world / OUT / "sehen.yaml").write_text(yaml.safe_dump(look, allow_unicode=True), encoding="utf-8")
    said = ""
    for arguments in (
        immunize("--output", f"{OUT}/eins"),
        ["attack", f"{OUT}/eins/model", "--config", "few.yaml", *likeness, "--kohya", "--output", f"{OUT}/zwei"],
        [
            "evaluate",
            MODEL,
            "--lora",
            f"{OUT}/zwei/weights",
            "--config",
            f"{OUT}/sehen.yaml",
            *likeness,
            "--output",
            f"{OUT}/sehen",
        ],
        ["generate", MODEL, "--prompts", "wünsche.txt", "--count", "1", "--steps", "1", "--output", f"{OUT}/猫.png"],
        ["card", f"{OUT}/eins/model"],
        ["attack", "--config", f"{OUT}/zwei/config.yaml", "--output", f"{OUT}/wieder"],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        said += done.output
    after = tree(world)
    assert {name: kept for name, kept in after.items() if not name.startswith(f"{OUT}/")} == before
    first, again = (json.loads(after[f"{OUT}/{name}/attack.json"][0]) for name in ("zwei", "wieder"))
    assert first["losses"] == again["losses"]
    assert first["config"]["concept"] == "ein roter Bär 猫"
    assert f"{PICTURES}: 2 pictures; 1 with the default caption; skipped 1 hidden" in said
    assert "2 pictures of the concept for batches of 16: a picture is in a batch more than once" in said
    assert "2 pictures for batches of 8" in said


@pytest.mark.slow
def test_a_bare_machine_is_enough(world: Path) -> None:
    """No home, no terminal, no network, an ASCII locale: both verbs end well and print plain lines."""
    kept = {"PATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "LD_LIBRARY_PATH", "TMPDIR"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    environment |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "HOME": "/nonexistent", "https_proxy": "http://127.0.0.1:9"}
    draw = ["generate", f"{OUT}/model", "--prompt", "ein Bär", "--count", "1", "--steps", "1", "--output", "猫.png"]
    code = f"from gift.cli.main import app\nfor verb in {[immunize('--output', OUT), draw]!r}: app(verb, standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    lines = (done.stdout + done.stderr).decode("ascii").splitlines()
    assert done.returncode == 0, lines
    assert [line for line in lines if not line.isprintable()] == []
    assert lines[0] == r"1 pictures in \u732b.png"
    assert (world / "猫.png").exists()
    assert json.loads((world / OUT / "immunize.json").read_text(encoding="utf-8"))["config"]["concept"] == "ein roter Bär 猫"


def test_undecodable_names_work_or_are_told(world: Path) -> None:
    odd = os.fsdecode(b"m\xff")
    (world / PICTURES).rename(world / odd)
    likeness = ["--concept", "a", "--similarity", "bundled", "--config", "few.yaml"]
    done = CliRunner().invoke(app, ["attack", MODEL, *likeness, "--concept-images", odd, "--output", "out"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "m\\udcff: 2 pictures; 1 with the default caption" in done.stderr
    assert json.loads((world / "out" / "attack.json").read_text(encoding="utf-8"))["config"]["concept_images"] == odd
    again = CliRunner().invoke(app, ["attack", "--config", "out/config.yaml", "--output", "again"])
    assert again.exit_code == 0, (again.output, again.exception)
    done = CliRunner().invoke(app, ["generate", MODEL, "--prompt", "x", "--count", "1", "--steps", "1", "--output", f"{odd}.png"])
    assert done.stdout == "1 pictures in m\\udcff.png\n"
    before = tree(world)
    (world / MODEL).rename(world / f"{odd}2")
    for arguments, words in (
        (["generate", f"{odd}2", "--prompt", "x"], "the path m\\udcff2 is not UTF-8; rename it"),
        (["generate", "tiny", "--prompt", odd], "holds bytes that are not text"),
        (["immunize", "tiny", "--concept", "ant", "--output", f"new{odd}"], "is not UTF-8; rename it"),
        (["immunize", "tiny", "--concept", odd], "holds a character that is not text; write it in UTF-8"),
        (["immunize", "tiny", "--concept", "a\x1b[31m"], "holds a character that is not text"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2, done.exception
        assert words in done.stderr
        assert done.stderr.rstrip("\n").isprintable()
    (world / f"{odd}2").rename(world / MODEL)
    assert tree(world) == before


LONG = {"a long name": "x" * 300, "a long path": "/".join(["d" * 200] * 25)}


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_a_path_too_long_is_told_by_every_verb(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    concept, original = ["--concept", "ant"], ["--concept", "ant", "--original", art_model]
    for arguments in (
        ["immunize", name, *concept],
        ["immunize", art_model, *concept, "--output", name],
        ["immunize", art_model, *concept, "--config", name],
        ["immunize", art_model, *concept, "--concept-images", name],
        ["immunize", art_model, *concept, "--safe-images", name],
        ["immunize", art_model, "--concepts", name],
        ["attack", art_model, *concept, "--concept-images", name],
        ["attack", art_model, *concept, "--output", name],
        *(
            ["evaluate", art_model, *original, option, name]
            for option in ("--lora", "--embeds", "--concept-images", "--real-images", "--output")
        ),
        *(["evaluate", art_model, *original, "--similarity", f"{kind}:{name}"] for kind in ("clip", "dino", "lpips")),
        ["generate", art_model, "--prompts", name],
        ["generate", art_model, "--prompt", "an ant", "--count", "1", "--steps", "1", "--output", f"{name}.png"],
        ["demo", "--output", name],
        ["bench", f"{name}.yaml"],
        ["bench", "smoke", "--output", name],
        ["report", name],
        ["card", name],
        ["card", art_model, "--evidence", name],
        ["card", art_model, "--output", name],
        ["push", name, "owner/name"],
    ):
        done = CliRunner().invoke(app, arguments)
        shown = [word[:20] for word in arguments]
        assert done.exit_code == 2, (shown, done.output[:300], done.exception)
        assert done.stderr.startswith("gift: "), (shown, done.stderr[:300])
        assert done.stderr.count("\n") == 1, shown
        assert list(tmp_path.iterdir()) == [], shown


REFUSED = {"neu", PICTURES, "früh.yaml"}


@pytest.mark.parametrize("number", [EACCES, EROFS, ENAMETOOLONG])
@pytest.mark.parametrize("call", ["mkdir", "open", "iterdir", "read_text", "exists"])
def test_a_disk_that_refuses_is_told(world: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Whatever is asked of the output or the pictures, and whoever runs it."""

    def refusing(path: Path, *args: object, **options: object) -> object:
        if path.name in REFUSED or path.parent.name == "neu":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **options)

    real = getattr(Path, call)
    before = tree(world)
    monkeypatch.setattr(Path, call, refusing)
    done = CliRunner().invoke(app, immunize("--config", "früh.yaml", "--output", "neu"))
    monkeypatch.undo()
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.count("\n") == 1, done.stderr
    assert os.strerror(number) in done.stderr
    assert tree(world) == before
