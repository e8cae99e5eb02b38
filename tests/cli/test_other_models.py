"""Immunize, attack and evaluate from the command line on models with a vocabulary of their own: every family's."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from gift.attacks import ATTACKS
from gift.bench.evaluation import evaluate_model
from gift.cli.main import app
from gift.errors import GiftError
from gift.metrics.embedders import load_embedder
from gift.metrics.likeness import LikenessScorer
from gift.models import load
from gift.models.kohya import KOHYA_FILE
from tests.conftest import noise_pictures
from tests.models.families import ROWS, Row


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with pictures of a concept."""
    monkeypatch.chdir(tmp_path)
    noise_pictures(tmp_path / "pictures", 3)
    return tmp_path


def ran(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("row", [row for row in ROWS if row.size is None], ids=lambda row: row.name)
def test_every_family_from_the_command_line(row: Row, here: Path) -> None:
    row.model().save(here / "model")
    settings = [f"--set={setting}" for setting in ("steps=1", "batch_size=2", "attacker.steps=1", "settle_steps=1")]
    (here / "few.yaml").write_text("{concept_pictures: 2, safe_pictures: 2}")
    ran("immunize", "model", "--concept", "a fox", "--config", "few.yaml", *settings, "--output", "out")
    unet = row.family.denoiser_part == "unet"
    (here / "look.yaml").write_text("{evaluation_pictures: 2}")
    arguments = ["attack", "out/model", "--concept", "a fox", "--concept-images", "pictures", "--similarity", "bundled"]
    arguments += ["--steps", "2", "--set", "batch_size=2", "--config", "look.yaml", *(["--kohya"] if unet else [])]
    assert "likeness" in ran(*arguments, "--output", "attacked")
    record = json.loads((here / "attacked" / "attack.json").read_text())
    assert [step for step, _ in record["curve"]] == [0, 2]
    assert (here / "attacked" / "weights" / KOHYA_FILE).exists() is unet
    (here / "some.yaml").write_text("{pictures: 2, safe_pictures: 4, original: model, redraw: false}")
    arguments = ["evaluate", "out/model", "--concept", "a fox", "--concept-images", "pictures", "--config", "some.yaml"]
    text = ran(*arguments, "--output", "evaluation")
    assert "alike" in text
    assert "real FID" not in text
    assert "safe accuracy" not in text
    found = json.loads((here / "evaluation" / "evaluation.json").read_text())
    assert found["scored_by"] == "likeness to the concept's pictures"
    assert (found["safe_accuracy"], found["neighbours"], found["real"]) == (None, None, None)
    assert found["redrawn"] is None


def test_pictures_of_other_prompts_are_compared_with_the_users_own(here: Path) -> None:
    ROWS[0].model().save(here / "model")
    (here / "some.yaml").write_text("{pictures: 2, safe_pictures: 4, original: model}")
    arguments = ["evaluate", "model", "--concept", "a fox", "--concept-images", "pictures", "--config", "some.yaml"]
    assert "real FID" in ran(*arguments, "--real-images", "pictures", "--output", "evaluation")
    found = json.loads((here / "evaluation" / "evaluation.json").read_text())
    assert found["real"]["fid"] == found["real"]["original_fid"] > 0
    assert found["similarity"]["bundled"]["real_cmmd"] == found["similarity"]["bundled"]["original_real_cmmd"] > 0


def test_weights_held_in_bf16_from_the_command_line(here: Path) -> None:
    ROWS[0].model().save(here / "model")
    (here / "few.yaml").write_text("{concept_pictures: 2, safe_pictures: 2}")
    steps = [f"--set={s}" for s in ("steps=1", "batch_size=2", "attacker.steps=1", "attacker.kinds=[lora]", "settle_steps=1")]
    how = ["--concept", "a fox", "--held-in", "bf16"]
    ran("immunize", "model", *how, "--config", "few.yaml", *steps, "--set", "adapter_rank=2", "--output", "out")
    (file,) = (here / "out" / "model" / ROWS[0].family.denoiser_part).glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}
    done = CliRunner().invoke(app, ["immunize", "model", *how, "--config", "few.yaml", *steps, "--output", "whole"])
    assert done.exit_code == 2
    assert "trainable weights are torch.bfloat16; hold the model in fp32, or train a LoRA on it" in done.stderr


def test_a_variant_is_asked_for_by_every_verb_that_has_the_flag(here: Path) -> None:
    ROWS[0].model().save(here / "model")
    for verb in (["immunize", "--concept", "a fox"], ["attack", "--concept", "a fox"], ["evaluate", "--concept", "a fox"]):
        done = CliRunner().invoke(app, [verb[0], "model", *verb[1:], "--variant", "fp8", "--output", "out"])
        assert "has no variant 'fp8'" in done.stderr, done.output
    done = CliRunner().invoke(app, ["generate", "model", "--prompt", "a fox", "--variant", "fp8", "--output", "out.png"])
    assert "has no variant 'fp8'" in done.stderr


def test_likeness_is_a_mean_over_the_reference_and_never_below_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    taught, shown = (torch.randint(256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8) for n in (3, 4))
    by = load_embedder("bundled")
    expected = [max(0.0, sum(float(a @ b) for b in by(taught)) / 3) for a in by(shown)]
    assert LikenessScorer(by, taught)(shown) == pytest.approx(expected, abs=1e-5)
    assert all(0 <= score <= 1 for score in LikenessScorer(load_embedder("bundled-lpips"), taught)(255 - shown))


def test_a_search_by_likeness(here: Path) -> None:
    next(row for row in ROWS if row.name == "sd1").model().save(here / "model")
    (here / "look.yaml").write_text("{evaluation_pictures: 2}")
    arguments = ["attack", "model", "--concept", "a fox", "--concept-images", "pictures", "--similarity", "bundled"]
    text = ran(*arguments, "--steps", "1", "--search", "10", "--config", "look.yaml", "--output", "worst")
    assert "worst" in text
    tried = {trial["attack"] for trial in json.loads((here / "worst" / "search.json").read_text())["trials"]}
    assert len(tried) > 5
    assert "sequence" not in tried, "there are no harmless pictures"
    wrong = CliRunner().invoke(app, [*arguments, "--search", "1", "--compile", "nonsense", "--output", "other"])
    assert wrong.exit_code == 2
    assert "no backend 'nonsense'" in wrong.stderr, "a search saves what its flags say"
    wrong = CliRunner().invoke(app, [*arguments, "--search", "1", "--least-share", "0.5", "--output", "other"])
    assert wrong.exit_code == 2
    assert "least_share mixes harmless pictures in, and none are bundled for this model" in wrong.stderr


def test_every_verb_draws_as_it_is_told_and_the_immunized_model_keeps_it(here: Path) -> None:
    row = next(row for row in ROWS if row.name == "sd1")
    row.model().save(here / "model")
    (here / "few.yaml").write_text("{concept_pictures: 2, safe_pictures: 2, sampler_steps: 9}")
    arguments = ["immunize", "model", "--concept", "a fox", "--method", "ascent", "--config", "few.yaml", "--set=steps=1"]
    ran(*arguments, "--set=batch_size=2", "--sampler-steps", "3", "--guidance", "5", "--output", "out")
    assert json.loads((here / "out" / "model" / "sampling.json").read_text()) == {"steps": 3, "guidance": 5.0}
    assert not (here / "model" / "sampling.json").exists()

    def sheet(model: str, *options: str) -> bytes:
        ran("generate", model, "--prompt", "a fox", "--count", "1", *options, "--output", "sheet.png")
        return (here / "sheet.png").read_bytes()

    kept = sheet("out/model")
    assert kept == sheet("out/model", "--steps", "3", "--guidance", "5") != sheet("out/model", "--guidance", "1")

    (here / "some.yaml").write_text("{pictures: 2, safe_pictures: 4, original: out/model, neighbour_pictures: 0, redraw: false}")
    arguments = ["evaluate", "out/model", "--concept", "a fox", "--concept-images", "pictures", "--config", "some.yaml"]
    found = []
    for options in ([], ["--guidance", "1"]):
        ran(*arguments, *options, "--output", "evaluation")
        found.append(json.loads((here / "evaluation" / "evaluation.json").read_text()))
        assert found[-1]["fid"] == 0, "the original is drawn the same way"
    assert found[0]["concept_scores"] != found[1]["concept_scores"]
    with pytest.raises(GiftError, match=r"is drawn with .*; open both with the same"):
        evaluate_model(load("out/model"), "a fox", original=load("model"), concept_images=here / "pictures")
    told = CliRunner().invoke(app, ["attack", "out/model", "--concept", "a fox", "--guidance", "nan"])
    assert told.exit_code == 2
    assert "--guidance" in told.output


SEARCH = ["--concept", "a fox", "--concept-images", "pictures", "--harmless-images", "pictures", "--similarity", "bundled"]
SEARCH += ["--steps", "1", "--set", "batch_size=2", "--config", "few.yaml"]


@pytest.mark.parametrize(
    ("row", "held"),
    [(row, "fp32") for row in ROWS if row.refused] + [(ROWS[0], "bf16")],
    ids=lambda given: given if isinstance(given, str) else given.name,
)
def test_a_search_leaves_out_what_a_model_has_no_place_for(row: Row, held: str, here: Path) -> None:
    """In bf16 adapters alone can be trained; each of the others is named, and the same command goes on."""
    row.model().save(here / "model")
    (here / "few.yaml").write_text("{evaluation_pictures: 2, sampler_steps: 2}")
    most = sum(not kind.needs_base for kind in ATTACKS.values()) + 2
    searched = CliRunner().invoke(app, ["attack", "model", *SEARCH, "--held-in", held, "--search", str(most), "--output", "out"])
    assert searched.exit_code == 0, searched.output
    found = json.loads((here / "out" / "search.json").read_text())
    tried = {trial["attack"] for trial in found["trials"]}
    adapters = {name for name, kind in ATTACKS.items() if kind.trains_adapters}
    able = {name for name, kind in ATTACKS.items() if not kind.needs_base} - row.refused
    assert tried == (able & adapters if held == "bf16" else able)
    for name in row.refused - {name for name, kind in ATTACKS.items() if kind.needs_base}:
        assert f"the search leaves out {name}: diffusers reads no" in searched.stderr
    assert ("the search leaves out full: attack 'full' trains weights" in searched.stderr) is (held == "bf16")
    assert yaml.safe_load((here / "out" / "worst.yaml").read_text()).get("pictures") is None, "all of one's own are used"
    assert ran("attack", "--config", "out/worst.yaml", "--output", "again").startswith("step")


def test_a_default_attack_that_a_model_has_no_place_for_is_told_before_the_search(here: Path) -> None:
    ROWS[0].model().save(here / "model")
    (here / "few.yaml").write_text("{evaluation_pictures: 2, sampler_steps: 1}")
    done = CliRunner().invoke(app, ["attack", "model", *SEARCH, "--attack", "full", "--held-in", "bf16", "--search", "3"])
    assert done.exit_code == 2
    assert "attack 'full' trains weights, and these are torch.bfloat16; hold the model in fp32" in done.stderr
    assert "trial 1" not in done.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "adapter=loha"], "attack 'lora' with adapter 'loha' writes none"),
        (["--set", "adapter=dora"], "attack 'lora' with adapter 'dora' writes none"),
        (["--attack", "full"], "attack 'full' writes none"),
        (["--search", "1"], "a search keeps none"),
    ],
)
def test_kohya_files_that_will_not_be_are_told_at_once(here: Path, more: list[str], says: str) -> None:
    ROWS[0].model().save(here / "model")
    (here / "few.yaml").write_text("{evaluation_pictures: 2, sampler_steps: 1}")
    done = CliRunner().invoke(app, ["attack", "model", *SEARCH[:4], *SEARCH[6:], "--kohya", *more, "--output", "out"])
    assert done.exit_code == 2
    assert says in done.stderr
    assert not (here / "out").exists()


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in {"sd3", "pixart-sigma"}], ids=lambda row: row.name)
def test_kohya_s_layout_of_another_denoiser_is_refused_before_the_first_step(row: Row, here: Path) -> None:
    row.model().save(here / "model")
    (here / "few.yaml").write_text("{evaluation_pictures: 2, sampler_steps: 1}")
    done = CliRunner().invoke(app, ["attack", "model", *SEARCH[:4], *SEARCH[6:], "--kohya", "--output", "out"])
    assert done.exit_code == 2
    assert "--kohya writes the LoRA of a UNet, and model has a transformer; leave it out" in done.stderr
    assert "step" not in done.stderr
    assert not (here / "out" / "weights").exists()


def test_the_original_and_the_base_are_opened_in_the_same_variant(here: Path) -> None:
    ROWS[0].model().pipeline.save_pretrained(here / "model", variant="fp16")
    (here / "few.yaml").write_text("{evaluation_pictures: 2, sampler_steps: 1}")
    base = ["--attack", "toward-base", "--base", "model", "--variant", "fp16", "--output", "out"]
    assert "step" in ran("attack", "model", *SEARCH[:4], *SEARCH[6:], *base)
    (here / "few.yaml").write_text("{pictures: 2, safe_pictures: 4, sampler_steps: 1, redraw: false}")
    told = [
        "--config",
        "few.yaml",
        "--concept",
        "a fox",
        "--concept-images",
        "pictures",
        "--original",
        "model",
        "--variant",
        "fp16",
    ]
    ran("evaluate", "model", *told, "--output", "evaluated")
    assert json.loads((here / "evaluated" / "evaluation.json").read_text())["fid"] == pytest.approx(0, abs=1e-3)


def test_the_next_command_that_is_told_can_be_run(here: Path) -> None:
    ROWS[0].model().save(here / "model")
    few = ["--set", "steps=1", "--set", "batch_size=2", "--config", "few.yaml", "--method", "ascent"]
    (here / "few.yaml").write_text("{concept_pictures: 2, safe_pictures: 2, sampler_steps: 1}")
    told = ["--concept", "Van Gogh's style", "--output", "my out"]
    for more, of in ([[], "FOLDER"], [["--concept-images", "pictures"], "pictures"]):
        done = CliRunner().invoke(app, ["immunize", "model", *few, *told, *more])
        assert done.exit_code == 0, done.output
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("next: "))
        command = shlex.split(line.removeprefix("next: "))
        assert command[:5] == ["gift", "attack", "my out/model", "--concept", "Van Gogh's style"]
        assert command[5:] == ["--concept-images", of, "--similarity", "clip:FOLDER"]


def test_pictures_too_few_to_compare_are_told_before_anything_is_drawn(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ROWS[0].model().save(here / "model")
    noise_pictures(here / "one", 1)
    noise_pictures(here / "spoiled", 2)
    (here / "spoiled" / "bad.png").write_text("no picture")
    monkeypatch.setattr("gift.models.latent.LatentDiffusion.generate", None)
    attack = ["attack", "model", "--concept", "a fox", "--similarity", "bundled", "--steps", "1", "--concept-images"]
    evaluate = ["evaluate", "model", "--original", "model", "--concept", "a fox", "--concept-images"]
    for command, told in (
        ([*attack, "one"], "one has 1 picture that can be used; comparing takes at least 2"),
        ([*evaluate, "one"], "one has 1 picture that can be used"),
        ([*evaluate, "pictures", "--real-images", "one"], "one has 1 picture that can be used"),
        ([*evaluate, "spoiled"], "1 pictures in spoiled can't be used"),
        ([*evaluate, "pictures", "--real-images", "spoiled"], "1 pictures in spoiled can't be used"),
    ):
        done = CliRunner().invoke(app, [*command, "--output", "out"])
        assert done.exit_code == 2, done.output
        assert told in done.stderr
        assert not (here / "out").exists()


def test_unreadable_pictures_may_be_skipped_by_evaluate_too(here: Path) -> None:
    ROWS[0].model().save(here / "model")
    (here / "pictures" / "bad.png").write_text("no picture")
    (here / "few.yaml").write_text("{pictures: 2, safe_pictures: 4, sampler_steps: 1, original: model, redraw: false}")
    told = ["--config", "few.yaml", "--concept", "a fox", "--concept-images", "pictures", "--real-images", "pictures"]
    ran("evaluate", "model", *told, "--skip-bad-images", "--output", "out")
    assert json.loads((here / "out" / "evaluation.json").read_text())["concept_score"] is not None
