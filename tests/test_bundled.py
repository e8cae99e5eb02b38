"""The bundled model and recogniser, as users get them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from gift.attacks import TextualInversion
from gift.bench.neighbours import read_drawings
from gift.bench.trial import attack_and_score
from gift.bench.workbench import Workbench
from gift.data.art import ART_FOLDER, load_art
from gift.data.prompts import Ask
from gift.metrics.concept import mean, prompted, read
from gift.metrics.recogniser import FOLDER, load_recogniser
from gift.models import TINY, load

pytestmark = pytest.mark.skipif(not (TINY / "model_index.json").exists(), reason="the bundled model has not been exported yet")


def megabytes(*folders: Path) -> float:
    return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file()) / 1e6


def test_it_is_small() -> None:
    assert megabytes(TINY, FOLDER) <= 40
    assert megabytes(ART_FOLDER) <= 10


def test_plain_diffusers_opens_it_without_code_of_ours() -> None:
    script = (
        "import sys, torch; from diffusers import StableDiffusionPipeline as P; p = P.from_pretrained(sys.argv[1]);"
        "image = p('a mushroom in noto style', num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0];"
        "assert image.size == (64, 64), image.size; assert not [m for m in sys.modules if m.split('.')[0] == 'gift']"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script, str(TINY)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_it_holds_no_pickles_and_says_where_it_comes_from() -> None:
    names = [p.name for p in TINY.rglob("*")]
    assert not [n for n in names if n.endswith((".bin", ".pt", ".ckpt", ".pkl"))]
    card = (TINY / "README.md").read_text()
    for licence in ("Apache-2.0", "CC-BY-4.0", "MIT", "CC-BY-SA-4.0"):
        assert licence in card


def test_the_split_is_the_arts() -> None:
    split = json.loads((TINY / "split.json").read_text())
    art = load_art()
    assert {tuple(pair) for pair in split["held_out"]} == set(art.held_out)
    assert split["objects"] == art.names


def test_no_file_says_where_it_was_made() -> None:
    for file in TINY.rglob("*.json"):
        assert not {"_name_or_path"} & json.loads(file.read_text(encoding="utf-8")).keys(), file


def test_the_library_draws_what_plain_diffusers_draws() -> None:
    ours = load("tiny").generate(["an owl in openmoji style"], [5], steps=6)
    pipe = StableDiffusionPipeline.from_pretrained(TINY, safety_checker=None)
    theirs = pipe(
        "an owl in openmoji style",
        num_inference_steps=6,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    assert torch.allclose(ours.float() / 255, theirs, atol=1.5 / 255)


def test_the_recogniser_knows_the_drawings() -> None:
    art, judge = load_art(), load_recogniser()
    for style in art.trained_styles:
        found = read(judge, art.atlas(style)).objects.argmax(1) == torch.arange(len(art.objects))
        assert found.float().mean() > 0.9, style


@pytest.mark.slow
def test_it_draws_what_it_is_asked_for() -> None:
    """A coarse guard against a broken export; `python -m recipes.tiny check` gives the figures."""
    art = load_art()
    pairs = [
        (o.name, s) for i, o in enumerate(art.objects) for s in art.trained_styles if i % 7 == 0 and (o.name, s) not in art.held_out
    ]
    asks = [Ask(f"{art.object(o).noun} in {s} style", i, o, s) for i, (o, s) in enumerate(pairs[:120:2])]
    images = load("tiny").generate([a.prompt for a in asks], [a.seed for a in asks])
    objects, styles = prompted(load_recogniser(), art, images, asks)
    assert mean(objects) >= 0.8
    assert mean(styles) >= 0.8


@pytest.mark.slow
def test_a_word_alone_learns_an_object_of_a_few_drawings_as_they_are() -> None:
    bench, how = Workbench.of(load("tiny"), "guitar", 0), TextualInversion(steps=100)
    curve = attack_and_score(bench.model, how, bench.attack_set(7), bench.asks(8), bench.scorer, seed=0).curve
    assert curve[0][1] <= 0.25
    assert curve[-1][1] >= 0.5


def test_the_kept_embeddings_are_the_recognisers_of_these_drawings() -> None:
    kept = load_recogniser().drawings
    assert kept is not None
    torch.testing.assert_close(kept, read_drawings(load_recogniser()))
