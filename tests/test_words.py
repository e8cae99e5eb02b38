"""The recipe that asks which word fits an attacker's drawings: which drawings are turned, and what the loss is."""

from __future__ import annotations

import pytest
import torch

from gift.bench.workbench import Workbench
from gift.errors import GiftError
from gift.models import load
from recipes import words
from tests.conftest import random_recogniser


@pytest.fixture
def bench(art_model: str) -> Workbench:
    return Workbench.of(load(art_model), "ant", 3)


def test_the_first_drawings_alone_are_as_the_artist_drew_them(bench: Workbench) -> None:
    assert bench.art is not None
    drawn = len(bench.art.styles)
    sets = words.sets_of(bench, drawn + 5)
    assert [len(data) for data in sets.values()] == [drawn, 5]
    pictures = bench.attack_images(drawn + 5)
    art = bench._fitted(torch.stack([bench.art.picture("ant", style) for style in bench.art.styles]))
    originals = {picture.numpy().tobytes() for picture in art}
    assert [picture.numpy().tobytes() in originals for picture in pictures] == [True] * drawn + [False] * 5
    assert list(words.sets_of(bench, 2)) == ["as drawn"]
    with pytest.raises(GiftError, match="and an object"):
        words.sets_of(Workbench.of(bench.model, "style:openmoji"), 4)


def test_the_loss_is_the_mean_over_draws_under_the_other_word(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "DRAWS", 6)
    data = words.sets_of(bench, 2)["as drawn"]
    generator = torch.Generator().manual_seed(0)
    captions = [data.prompts[int(row)].replace("an ant", "a thing") for row in data.which]
    cond = bench.model.encode_prompts(captions)
    with torch.no_grad():
        thrice = {name: tensor.repeat(3, *[1] * (tensor.dim() - 1)) for name, tensor in cond.items()}
        expected = bench.model.loss(data.latents.repeat(3, 1, 1, 1), thrice, generator).mean()
    assert words.losses_under(bench.model, {"these": data}, "a thing") == {"these": pytest.approx(float(expected), rel=1e-5)}
    assert words.losses_under(bench.model, {"these": data}, "an ant")["these"] != pytest.approx(float(expected), rel=1e-5)


def test_a_line_for_each_word(art_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(words, "DRAWS", 1)
    monkeypatch.setattr("gift.bench.workbench.load_recogniser", random_recogniser)
    words.main(art_model, "ant", pictures=9, seed=0)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["as", "drawn", "turned", "and", "recoloured"]
    assert [line.split("'")[1] for line in lines][::2] == ["an ant", "picture"]
    assert len(lines) == 4
    assert all(float(value) > 0 for line in lines for value in line.rpartition("'")[2].split())
