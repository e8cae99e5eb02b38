"""The concept's pictures under made-up words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from gift.data.latents import LatentSet
from gift.immunizers import Gift, Task
from gift.immunizers.concept_loss import ConceptLoss
from gift.immunizers.words import FEWEST, ConceptBatches, made_up
from gift.models.base import Cond
from gift.models.sd import StableDiffusion


@pytest.fixture
def task(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet) -> Task:
    named = replace(concept_set, mentions=["fox", "a fox"])
    return Task(random_model.copy(), named, safe_set, Accelerator(cpu=True), 3)


def asked_for(task: Task, share: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that batches with that share of made-up words encode."""
    asked: list[str] = []
    encode = task.model.encode_prompts

    def listening(prompts: Sequence[str]) -> Cond:
        asked.extend(prompts)
        return encode(prompts)

    monkeypatch.setattr(task.model, "encode_prompts", listening)
    ConceptBatches(task, share)
    return asked


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), count=st.integers(0, 200))
def test_made_up_words_are_pronounceable_and_seeded(seed: int, count: int) -> None:
    words = made_up(seed, count)
    assert len(words) == count
    assert all(re.fullmatch(r"([^aeiou\W\d][aeiou]){1,3}", word) for word in words)
    assert words == made_up(seed, count)
    assert count < 5 or words != made_up(seed + 1, count)


def test_without_a_share_batches_are_the_sets_own(task: Task) -> None:
    own = task.concept.batch(5, torch.Generator().manual_seed(2))
    drawn = ConceptBatches(task, 0.0)(5, torch.Generator().manual_seed(2))
    assert torch.equal(own[0], drawn[0])
    assert all(torch.equal(own[1][name], drawn[1][name]) for name in own[1])


def test_prompts_are_the_concepts_with_another_word(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = asked_for(task, 0.5, monkeypatch)
    words = made_up(3, FEWEST)
    assert task.concept.prompts == ["fox", "a fox"]
    assert prompts == [word if i % 2 == 0 else f"a {word}" for i, word in enumerate(words)]


def test_prompts_that_name_nothing_are_replaced(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = replace(task, concept=replace(task.concept, mentions=None))
    assert asked_for(nameless, 1.0, monkeypatch) == [f"a picture of {word}" for word in made_up(3, FEWEST)]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_that_share_stands_under_them_and_keeps_its_picture(task: Task, share: float) -> None:
    latents, cond = ConceptBatches(task, share)(2000, torch.Generator().manual_seed(5))
    pick = task.concept.draw(2000, torch.Generator().manual_seed(5))
    plain, own = task.concept.at(pick)
    assert torch.equal(latents, plain)
    same = (cond["states"] == own["states"]).flatten(1).all(1)
    assert (~same).float().mean() == pytest.approx(share, abs=0.03)
    # A picture keeps the form of its prompt, 'fox' or 'a fox': the first word's state after the beginning is the article's.
    article = task.model.encode_prompts(["a fox"])["states"][0, 1]
    forms = (cond["states"][:, 1] - article).abs().amax(1) < 1e-5
    assert torch.equal(forms, (own["states"][:, 1] - article).abs().amax(1) < 1e-5)


def test_the_concepts_loss_is_on_such_batches(task: Task) -> None:
    loss, _ = ConceptLoss(Gift(other_words=0.5), task, 4)(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    batch = ConceptBatches(task, 0.5)(4, generator)
    assert float(loss) == pytest.approx(float(task.model.mean_loss(*batch, generator).detach()), rel=1e-5)
    plain, _ = ConceptLoss(Gift(), task, 4)(torch.Generator().manual_seed(1))
    assert float(loss) != pytest.approx(float(plain), rel=1e-3)
