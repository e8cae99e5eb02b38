"""The concept's pictures under made-up words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gift.data.latents import encode_set
from gift.errors import GiftError
from gift.immunizers import Gift, Task
from gift.immunizers.concept_loss import ConceptLoss
from gift.immunizers.terms import watch_layers
from gift.immunizers.words import FEWEST, Renamed, made_up
from gift.models.sd import StableDiffusion


@pytest.fixture
def task(task: Task) -> Task:
    """The concept's prompts say how they name it."""
    return replace(task, concept=replace(task.concept, mentions=["fox", "a fox"]), seed=3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), count=st.integers(0, 200))
def test_made_up_words_are_pronounceable_and_seeded(seed: int, count: int) -> None:
    words = made_up(seed, count)
    assert len(words) == count
    assert all(re.fullmatch(r"([^aeiou\W\d][aeiou]){1,3}", word) for word in words)
    assert words == made_up(seed, count)
    assert count < 5 or words != made_up(seed + 1, count)


def test_prompts_are_the_concepts_with_another_word(task: Task) -> None:
    assert task.concept.prompts == ["fox", "a fox"]
    words = made_up(3, FEWEST)
    assert Renamed(task.model, task.concept, 3).prompts == [word if i % 2 == 0 else f"a {word}" for i, word in enumerate(words)]


def test_prompts_that_name_nothing_are_replaced(task: Task) -> None:
    nameless = replace(task.concept, mentions=None)
    assert Renamed(task.model, nameless, 3).prompts == [f"a picture of {word}" for word in made_up(3, FEWEST)]


def test_a_set_of_many_prompts_has_a_word_for_each(random_model: StableDiffusion) -> None:
    prompts = [f"fox {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] * 3
    prompts = [f"{prompt} {i // 26}" for i, prompt in enumerate(prompts)]
    data = encode_set(random_model, torch.zeros(78, 3, 16, 16, dtype=torch.uint8), prompts, mentions=["fox"] * 78)
    assert [p.split()[1:] for p in Renamed(random_model, data, 0).prompts] == [p.split()[1:] for p in prompts]


def test_pictures_keep_the_form_of_their_prompt(task: Task) -> None:
    renamed = Renamed(task.model, task.concept, 3)
    latents, cond = renamed.batch(500, torch.Generator().manual_seed(5))
    pick = task.concept.draw(500, torch.Generator().manual_seed(5))
    assert torch.equal(latents, task.concept.latents[pick])
    rows = [(renamed.cond["states"] == row).flatten(1).all(1).nonzero()[0, 0].item() for row in cond["states"]]
    assert [int(row) % 2 for row in rows] == task.concept.which[pick].tolist()
    assert len(set(rows)) > 0.9 * FEWEST


@pytest.mark.parametrize(("share", "own", "other"), [(0.0, 8, 0), (0.01, 7, 1), (0.25, 6, 2), (1.0, 0, 8)])
def test_each_kind_has_a_bound_of_its_own(task: Task, share: float, own: int, other: int) -> None:
    how = Gift(other_words=share, ascent_weight=3.0)
    loss, objective = ConceptLoss(how, task, 8)(torch.Generator().manual_seed(1))
    generator, losses = torch.Generator().manual_seed(1), torch.zeros(2)
    for place, size, data in ((1, other, Renamed(task.model, task.concept, 3)), (0, own, task.concept)):
        if size:
            losses[place] = task.model.loss(*data.batch(size, generator), generator).mean().detach()
    shares = torch.tensor([own, other]) / 8
    assert float(loss) == pytest.approx(float((shares * losses).sum()), rel=1e-5)
    assert float(objective.detach()) == pytest.approx(-3 * float((shares * torch.log1p(losses)).sum()), rel=1e-5)


@pytest.mark.parametrize(("share", "batch", "other"), [(0.9, 2, 1), (0.9, 4, 3), (0.1, 2, 1), (1.0, 1, 1)])
def test_the_concept_s_own_words_stay_in_every_batch(task: Task, share: float, batch: int, other: int) -> None:
    loss = ConceptLoss(Gift(other_words=share), task, batch)
    assert sum(size for size, data in loss.draws if isinstance(data, Renamed)) == other
    assert sum(size for size, _ in loss.draws) == batch


def test_a_batch_of_one_picture_can_not_be_shared(task: Task) -> None:
    with pytest.raises(GiftError, match=r"other_words=0\.1 shares a batch of one picture; raise batch_size"):
        ConceptLoss(Gift(other_words=0.1), task, 1)


def test_noising_is_of_the_concepts_own_words(task: Task) -> None:
    how = Gift(other_words=0.5, ascent_weight=0.0, noise_weight=1.0)
    generator = torch.Generator().manual_seed(1)
    _, objective = ConceptLoss(how, task, 4)(torch.Generator().manual_seed(1))
    task.model.mean_loss(*Renamed(task.model, task.concept, 3).batch(2, generator), generator)
    layers = watch_layers(task.model, how.layers, how.noise, how.distance)
    with layers.watching():
        task.model.mean_loss(*task.concept.batch(2, generator), generator)
    assert float(objective.detach()) == pytest.approx(float(layers.distance_to_noise(generator).detach()), rel=1e-5)
