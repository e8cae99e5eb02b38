"""Files of unknown origin run nothing: pickles under any name are refused, and no reader in the source would open one."""

from __future__ import annotations

import ast
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import gift
from gift.cli.main import app

SOURCE = Path(gift.__file__).parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "torch.jit.load",
    "torch.hub.load",
}


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.mark), "w")


@pytest.fixture
def here(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pickles that leave a mark, under the names that each reader asks for."""
    monkeypatch.chdir(tmp_path)
    evil = Evil(tmp_path / "mark")
    for folder in ("plain", "zipped", "network", "adapter", "renamed"):
        Path(folder).mkdir()
    for name in ("m.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl", "m.safetensors"):
        Path("plain", name).write_bytes(pickle.dumps({"<x>": evil}, protocol=2))
        torch.save({"<x>": evil}, Path("zipped", name))
    Path("network/config.json").write_text('{"model_type": "clip"}')
    torch.save({"x": evil}, "network/pytorch_model.bin")
    torch.save({"x": evil}, "adapter/pytorch_lora_weights.bin")
    torch.save({"x": evil}, "renamed/pytorch_lora_weights.safetensors")
    shutil.copytree(art_model, "model")
    Path("model/unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"x": evil}, "model/unet/diffusion_pytorch_model.bin")
    Path("few.yaml").write_text(yaml.safe_dump({"concept": "ant", "original": art_model, "pictures": 2, "safe_pictures": 4}))
    return tmp_path


PICKLED = [f"{folder}/m.{ending}" for folder in ("plain", "zipped") for ending in ("bin", "pt", "pth", "ckpt", "safetensors")]


def test_no_pickle_is_opened(here: Path, art_model: str) -> None:
    evaluate = ["evaluate", art_model, "--config", "few.yaml"]
    runs = [["generate", name, "--prompt", "x"] for name in [*PICKLED, "plain/m.pkl", "model"]]
    runs += [[*evaluate, option, name] for option in ("--lora", "--embeds") for name in PICKLED]
    runs += [[*evaluate, "--lora", folder] for folder in ("adapter", "renamed")]
    runs += [[*evaluate, "--similarity", f"lpips:{folder}/m.pth"] for folder in ("plain", "zipped")]
    runs += [[*evaluate, "--similarity", "clip:network"], ["immunize", "model", "--concept", "ant"]]
    for arguments in runs:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert done.stderr.count("\n") == 1, (arguments, done.stderr)
        assert done.stderr.startswith("gift: ")
        assert not (here / "mark").exists(), arguments
    with pytest.raises(pickle.UnpicklingError):  # so the files are what they are meant to be
        torch.load("zipped/m.pt", weights_only=True)
    torch.load("zipped/m.pt", weights_only=False)
    assert (here / "mark").exists()


def unsafe(tree: ast.AST) -> list[str]:
    """What in a source file could run code that a file brings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module or ""] if module else [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if call in FORBIDDEN_CALLS or (call == "torch.load" and given.get("weights_only") != "True"):
                found.append(call)
            found += [word for word in ("allow_pickle", "trust_remote_code") if given.get(word, "False") != "False"]
            found += ["use_safetensors"] if given.get("use_safetensors", "True") != "True" else []
    return found


def test_no_reader_in_the_source_would_run_code() -> None:
    for file in SOURCE.rglob("*.py"):
        assert unsafe(ast.parse(file.read_text(encoding="utf-8"))) == [], file
    bad = (
        "import pickle\nfrom joblib import load\ntorch.load(f)\nnp.load(f, allow_pickle=True)\nyaml.load(f)\nx(trust_remote_code=t)"
    )
    assert unsafe(ast.parse(bad)) == ["pickle", "joblib", "torch.load", "allow_pickle", "yaml.load", "trust_remote_code"]
