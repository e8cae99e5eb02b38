"""Two processes that train together give what one gives, write once and speak once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from gift.cli.main import app
from gift.launch import launched
from gift.parallel import average_gradients, mean_over_all, share
from tests.pair import launch_pair

TOLERANCE = 1e-4
"""Relative; sums over other shares round differently, and Adam's first steps enlarge that."""


def launch(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes, as torchrun starts them, which `accelerate launch` calls for several GPUs (on CPUs it starts one)."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launcher, "-m", "gift.cli.main", *arguments]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, env=environment, timeout=300, check=False)


def alone(here: Path, *arguments: str) -> None:
    """The same in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output


def attack(art_model: str, out: str) -> list[str]:
    options = ["--steps", "4", "--set", "batch_size=4", "--config", "few.yaml"]
    return ["attack", art_model, "--concept", "category:animal", *options, "--output", out]


@pytest.fixture
def here(tmp_path: Path, art_model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with short configurations; nothing is patched, since other processes would not know."""
    monkeypatch.undo()
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"evaluation_pictures": 2, "pictures": 6, "sampler_steps": 3}))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"concept_pictures": 4, "safe_pictures": 4, "sampler_steps": 3}))
    return tmp_path


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(here: Path, art_model: str) -> None:
    done = launch(here, *attack(art_model, "two"), "--accumulate", "2")
    assert done.returncode == 0, done.stderr
    alone(here, *attack(art_model, "one"))
    one, two = (json.loads((here / name / "attack.json").read_text()) for name in ("one", "two"))
    assert two["losses"] == pytest.approx(one["losses"], rel=TOLERANCE)
    assert two["curve"] == one["curve"]
    assert done.stdout.count("step     0") == 1, "one of them speaks"
    files = [path.relative_to(here / "two") for path in sorted((here / "two").rglob("*")) if "latents" not in path.parts]
    assert files == [path.relative_to(here / "one") for path in sorted((here / "one").rglob("*")) if "latents" not in path.parts]
    (first,), (second,) = ((here / name / "weights").glob("*.safetensors") for name in ("one", "two"))
    a, b = load_file(first), load_file(second)
    assert all(torch.allclose(a[key], b[key], rtol=1e-2, atol=1e-5) for key in a)


@pytest.mark.slow
def test_two_processes_immunize_as_one_does(here: Path, art_model: str) -> None:
    attacker = ("attacker.steps=2", "attacker.text_encoder=0.9", "attacker.replay=0.9")
    settings = [f"--set={s}" for s in ("steps=2", "batch_size=4", *attacker, "settle_steps=1", "train=attention")]
    arguments = ["immunize", art_model, "--concept", "category:animal", "--config", "small.yaml", *settings, "--output"]
    done = launch_pair(here, *arguments, "two")
    assert done.returncode == 0, done.stderr
    alone(here, *arguments, "one")
    name = "model/unet/diffusion_pytorch_model.safetensors"
    before, a, b = (load_file(path) for path in (Path(art_model) / name[6:], here / "one" / name, here / "two" / name))
    moved = [key for key in a if not torch.equal(a[key], before[key])]
    assert moved
    for key in moved:  # Adam's steps are of the rate's size whatever the gradient: compare with those
        assert (a[key] - b[key]).abs().max() < 0.02 * (a[key] - before[key]).abs().max(), key


@pytest.mark.slow
def test_a_batch_too_small_to_share_is_told_once(here: Path, art_model: str) -> None:
    done = launch_pair(here, *attack(art_model, "two"), "--set", "batch_size=1")
    assert done.returncode != 0
    assert done.stderr.count("gift: a batch of 1 can't be shared by 2 processes") == 1


def test_verbs_for_one_process_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert launched() == 2
    done = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "gift demo is for one process" in done.stderr
    done = CliRunner().invoke(app, ["attack", "tiny", "--concept", "mushroom", "--search", "2", "--output", str(tmp_path / "out")])
    assert "a search is for one process" in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_process_has_all_of_it() -> None:
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert mean_over_all(values[share(3)].sum(), 3).item() == 3
    parameter = torch.nn.Parameter(torch.zeros(2))
    average_gradients([parameter])
    assert parameter.grad is None


PAIR = """
import torch
from gift.parallel import anywhere, average_gradients, leave, mean_over_all, share

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
weight = torch.nn.Parameter(torch.tensor(2.0))
rows = torch.tensor([1.0, 3.0, 5.0, 7.0, 11.0])
mean = mean_over_all(((weight * rows[share(5)]) ** 2).sum(), 5)
torch.log1p(mean).backward()
average_gradients([weight])
found = {"mean": mean.detach(), "grad": weight.grad, "told": torch.tensor([anywhere(rank == 1), anywhere(False)])}
torch.save(found, f"{rank}.pt")
leave()
"""


def test_unequal_shares_and_functions_of_the_mean_are_exact(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text(PAIR)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "pair.py"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    weight = torch.nn.Parameter(torch.tensor(2.0))
    mean = ((weight * torch.tensor([1.0, 3.0, 5.0, 7.0, 11.0])) ** 2).mean()
    torch.log1p(mean).backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["mean"], mean.detach())
        torch.testing.assert_close(found["grad"], weight.grad)
        assert found["told"].tolist() == [True, False]


def sharded(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes with what `accelerate launch --use_fsdp` puts into the environment."""
    return launch_pair(here, *arguments, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_sharded_attacks_have_the_losses_of_one_process(here: Path, art_model: str, kind: str) -> None:
    done = sharded(here, *attack(art_model, "two"), "--attack", kind)
    assert done.returncode == 0, done.stderr
    alone(here, *attack(art_model, "one"), "--attack", kind)
    one, two = (json.loads((here / name / "attack.json").read_text()) for name in ("one", "two"))
    assert two["losses"] == pytest.approx(one["losses"], rel=TOLERANCE)
    assert two["curve"] == one["curve"]
    for first in sorted((here / "one" / "weights").rglob("*.safetensors")):
        a, b = load_file(first), load_file(here / "two" / first.relative_to(here / "one"))
        assert a.keys() == b.keys()
        assert all(torch.allclose(a[key], b[key], rtol=1e-2, atol=1e-5) for key in a)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--set=adapter_rank=2"]], ids=["weights", "adapter"])
def test_sharded_immunizing_is_as_in_one_process(here: Path, art_model: str, more: list[str]) -> None:
    # Adam steps as far where a gradient is all rounding as anywhere else; with this seed no weight has such a gradient.
    attacker = ("attacker.steps=2", "attacker.kinds=[full]", "attacker.replay=0.9")
    settings = [f"--set={s}" for s in ("steps=2", "batch_size=4", *attacker, "settle_steps=1")]
    arguments = ["immunize", art_model, "--concept", "category:animal", "--seed", "3", "--config", "small.yaml", *settings, *more]
    done = sharded(here, *arguments, "--output", "two")
    assert done.returncode == 0, done.stderr
    alone(here, *arguments, "--output", "one")
    name = "model/unet/diffusion_pytorch_model.safetensors"
    before, a, b = (load_file(path) for path in (Path(art_model) / name[6:], here / "one" / name, here / "two" / name))
    moved = [key for key in a if not torch.equal(a[key], before[key])]
    assert moved
    for key in moved:
        assert (a[key] - b[key]).abs().max() < 0.05 * (a[key] - before[key]).abs().max(), key


@pytest.mark.slow
def test_what_can_not_be_sharded_says_so(here: Path, art_model: str) -> None:
    settings = ["--set=steps=1", "--set=attacker.steps=1"]
    arguments = ["immunize", art_model, "--concept", "category:animal", "--config", "small.yaml", *settings]
    done = sharded(here, *arguments, "--output", "two")
    assert done.returncode != 0
    assert (
        done.stderr.count("gift: a simulated LoRA attacker can't run with sharded weights (FSDP); use attacker.kinds=[full]") == 1
    )
