"""What a user can get wrong on the command line: one line, a remedy, an exit code, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gift.cli.main import VERBS, app
from gift.files import owned

FILES = {
    "list.yaml": b"- a\n- b\n",
    "broken.yaml": b"a: [1\n",
    "unknown.yaml": b"concept: mushroom\nspeed: 3\n",
    "object.yaml": b"concept: !!python/object/apply:os.mkdir [made]\n",
    "itself.yaml": b"concept: mushroom\noptions: &a {steps: *a}\n",
    "words.yaml": b"concept: mushroom\nseed: many\n",
    "pickle.safetensors": b"\x80\x02}q\x00.",
    "model.ckpt": b"PK\x03\x04",
    "short.safetensors": b"abc",
    "no folder.yaml": b"concept: mushroom\nconcept_images: ''\n",
    "no folders.yaml": b"concept: [mushroom, owl]\nconcept_images: [null, '']\n",
    "nothing safe.yaml": b"concept: mushroom\nsafe_images: ''\n",
    "blank.txt": b"\n# nothing\n",
}

TABLE = [
    (["demo", "--config", "missing.yaml"], "can't read the configuration"),
    (["demo", "--config", "list.yaml"], "not a list of 'option: value'"),
    (["demo", "--config", "broken.yaml"], "is not YAML"),
    (["immunize", "--config", "object.yaml"], "is not YAML"),
    (["immunize", "--config", "itself.yaml"], "its aliases stand for"),
    (["bench", "object.yaml"], "is not YAML"),
    (["demo", "--config", "unknown.yaml"], "no option of demo 'speed'"),
    (["demo", "--config", "words.yaml"], "seed"),
    (["immunize", "nowhere", "--concept", "x"], "no model 'nowhere'"),
    (["immunize", "--config", "no folder.yaml"], "concept_images: the path is empty; name a folder or file, or leave it out"),
    (["immunize", "--config", "no folders.yaml"], "concept_images: the path is empty"),
    (["immunize", "--config", "nothing safe.yaml"], "safe_images: the path is empty"),
    (["attack", "--config", "no folder.yaml"], "concept_images: the path is empty"),
    (["evaluate", "--config", "no folders.yaml"], "concept_images: the path is empty"),
    (
        ["immunize", "tiny", "--concept", "owl", "--method", "esd", "--set", "variant=u", "--set", "adapter_rank=2"],
        "variant chooses",
    ),
    (["immunize", "tiny", "--concept", "owl", "--set", "train=attention", "--set", "adapter_rank=2"], "train chooses weights, and"),
    (["attack", "tiny", "--concept", "owl", "--attack", "custom-diffusion", "--set", "identifier=../x"], "identifier"),
    (["immunize", "tiny"], "concept: field required"),
    (["immunize", "tiny", "--concept", "mushroom", "--method", "magic"], "no method 'magic'"),
    (["immunize", "tiny", "--concept", "mushroom", "--set", "speed=3"], "no option of method 'gift' 'speed'"),
    (["immunize", "tiny", "--concept", "mushroom", "--set", "steps"], "is not an option; write --set key=value"),
    (["immunize", "tiny", "--concept", "mushroom", "--set", "steps=many"], "steps"),
    (
        ["immunize", "tiny", "--concept", "mushroom", "--method", "esd+gift", "--set", "imma.steps=2"],
        "no method of the chain 'esd+gift'",
    ),
    (["immunize", "tiny", "--concept", "mushroom", "--method", "esd+gift", "--set", "esd.speed=2"], "no option of method 'esd'"),
    (["immunize", "pickle.safetensors", "--concept", "x"], "is a pickle"),
    (["immunize", "short.safetensors", "--concept", "x"], "truncated"),
    (["immunize", "model.ckpt", "--concept", "x"], "pickled checkpoint"),
    (["immunize", ".", "--concept", "x"], "not a diffusers model"),
    (["attack", "tiny", "--concept", "mushroom", "--attack", "magic"], "no attack 'magic'"),
    (["attack", "tiny", "--concept", "mushroom", "--set", "rate=fast"], "rate"),
    (["evaluate", "nowhere", "--concept", "mushroom"], "no model 'nowhere'"),
    (["generate", "tiny"], "nothing to draw"),
    (["generate", "tiny", "--prompts", "blank.txt"], "holds no prompt"),
    (["generate", "tiny", "--prompts", "gone.txt"], "can't read prompts"),
    (["generate", "tiny", "--prompt", "x", "--output", "x.gif"], "is not a .png"),
    (["report", "gone"], "result.json"),
    (["card", "gone"], "gone holds no model"),
    (["card", ".", "--evidence", "gone"], "holds no model"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "says"), TABLE, ids=[" ".join(row[0]) for row in TABLE])
def test_one_line_a_remedy_and_an_exit_code(here: Path, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("gift: ")
    assert says.lower() in lines[0].lower()
    assert "Traceback" not in done.output
    left = {str(p.relative_to(here)) for p in here.rglob("*") if p.is_file()}
    assert left == set(FILES)


def test_an_output_in_use_is_told(here: Path) -> None:
    with owned(here / "out"):
        done = CliRunner().invoke(app, ["immunize", "tiny", "--concept", "mushroom", "--output", "out"])
    assert done.exit_code == 2
    assert "is in use by another gift run" in done.stderr


def test_an_output_that_is_a_file_is_told(here: Path) -> None:
    done = CliRunner().invoke(app, ["immunize", "tiny", "--concept", "mushroom", "--output", "list.yaml"])
    assert done.exit_code == 2
    assert "is a file" in done.stderr
    assert (here / "list.yaml").read_bytes() == FILES["list.yaml"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str) -> None:
    done = CliRunner().invoke(app, [verb, "--help"])
    assert done.exit_code == 0
    assert f"gift {verb}" in " ".join(done.output.split())


def test_help_comes_without_loading_torch() -> None:
    told = (
        "import sys; from gift.cli.main import app; app(['bench', '--help'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("arguments", [["demo", "--seed", "-1"], ["nonsense"], ["list", "nonsense"]])
def test_usage_errors_are_the_frameworks(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
