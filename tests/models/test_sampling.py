"""How a model is drawn from: what its folder says, what is said over it, and that every picture follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift.bench import config
from gift.bench.identity import model_identity, run_settings
from gift.data.latents import draw_set
from gift.data.prompts import Ask
from gift.errors import GiftError
from gift.immunizers import IMMUNIZERS
from gift.models import DenoisingModel, load, sampling
from gift.models.sampling import NAME, Sampling, read_sampling

ASKED = [f"a {thing}" for thing in ("fox", "sea")], [3, 4]


@pytest.fixture
def kept(random_model: DenoisingModel, tmp_path: Path) -> Path:
    """A model's folder that says how it is drawn from."""
    random_model.sampling = Sampling(3, 5.0)
    return random_model.save(tmp_path / "model")


def test_a_folder_keeps_it_and_what_is_given_goes_over_it(kept: Path) -> None:
    assert json.loads((kept / NAME).read_text()) == {"steps": 3, "guidance": 5.0}
    assert load(kept).sampling == load(kept).copy().sampling == Sampling(3, 5.0)
    assert load(kept, guidance=1).sampling == Sampling(3, 1.0)
    assert load(kept, sampler_steps=7).sampling == Sampling(7, 5.0)
    usual = load(kept, sampler_steps=15, guidance=2.0)
    assert usual.sampling == Sampling()
    assert not (usual.save(kept.with_name("usual")) / NAME).exists(), "plain diffusers folders stay plain"
    assert load(kept.with_name("usual")).sampling == Sampling()


def test_every_picture_is_drawn_so(kept: Path) -> None:
    model = load(kept)
    pictures = model.generate(*ASKED)
    assert torch.equal(pictures, model.generate(*ASKED, steps=3, guidance=5.0))
    assert not torch.equal(pictures, model.generate(*ASKED, steps=3, guidance=1.0))
    assert not torch.equal(pictures, model.generate(*ASKED, steps=5))
    asks = [Ask(prompt, seed) for prompt, seed in zip(*ASKED, strict=True)]
    drawn, told = draw_set(model, asks), draw_set(model, asks, steps=3, guidance=5.0)
    assert torch.equal(drawn.latents, told.latents)
    assert drawn.identity == told.identity != draw_set(model, asks, steps=4, guidance=5.0).identity


def test_it_is_part_of_what_a_number_depends_on(kept: Path) -> None:
    methods = [IMMUNIZERS["ascent"]()]
    own, other, usual = load(kept), load(kept, sampler_steps=4), load(kept, sampler_steps=15, guidance=2.0)
    assert len({model_identity(model) for model in (own, other, usual)}) == 3
    assert run_settings(own, methods)["sampling"] == {"steps": 3, "guidance": 5.0}
    assert "sampling" not in run_settings(usual, methods), "checkpoints and pieces of earlier versions stay good"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "can't be used"),
        ("[1]", "can't be used"),
        ('{"step": 3}', "can't be used"),
        ('{"steps": 0}', "sampler steps 0 is no whole number from 1 to 1000"),
        ('{"steps": 2.5}', "sampler steps 2.5"),
        ('{"steps": true}', "sampler steps True"),
        ('{"guidance": NaN}', "guidance nan"),
        ('{"guidance": "7"}', "guidance '7'"),
        ('{"guidance": -1}', "guidance -1"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(GiftError, match=NAME) as told:
        read_sampling(tmp_path)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_given_is_checked_before_anything_is_opened(tmp_path: Path) -> None:
    for options in ({"sampler_steps": 0}, {"guidance": float("inf")}):
        with pytest.raises(GiftError, match=r"sampler steps 0|guidance inf"):
            load(tmp_path / "nothing there", **options)


@given(steps=st.integers(1, 1000), guidance=st.floats(0, 1000))
def test_a_folder_says_what_was_kept(steps: int, guidance: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, chosen = tmp_path_factory.mktemp("kept"), Sampling(steps, guidance)
    for value in chosen.settings().values():
        (folder / NAME).write_text(json.dumps(value))
    assert read_sampling(folder) == chosen


def test_settings_of_grids_and_verbs_have_the_same_bounds() -> None:
    assert config.MOST == sampling.MOST
