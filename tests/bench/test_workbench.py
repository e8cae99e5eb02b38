"""A model with what a concept needs, for models that speak the bundled names and for those that don't."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from gift.bench.context import Context
from gift.bench.losses import parts_of
from gift.bench.workbench import FEWEST, Workbench, joined
from gift.data.art import load_art
from gift.data.concept import Concept
from gift.data.prompts import Ask
from gift.errors import GiftError
from gift.models import load
from gift.models.sd import StableDiffusion


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        Image.effect_noise((20, 20), 50 + i).convert("RGB").save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"picture {i}")
    (tmp_path / "0.txt").unlink()
    return tmp_path


def test_a_model_with_the_bundled_names_gets_the_drawings(art_model: str) -> None:
    bench = Workbench.of(load(art_model), ["mushroom", "style:noto"], 2)
    assert bench.art is load_art()
    assert bench.concepts == (Concept("object", "mushroom"), Concept("style", "noto"))
    assert bench.concept == bench.concepts[0]
    scores = bench.scorer(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert len(scores) == 2
    assert set(scores) <= {0.0, 1.0}
    with pytest.raises(GiftError, match="no concept 'mushrom'"):
        Workbench.of(load(art_model), "mushrom")


def test_a_model_with_its_own_vocabulary_takes_free_text(random_model: StableDiffusion) -> None:
    bench = Workbench.of(random_model, "a red car")
    assert bench.art is None
    assert bench.concept == Concept("text", "a red car")
    for ask in (lambda: bench.scorer, lambda: bench.attack_set(4)):
        with pytest.raises(GiftError, match="a red car"):
            ask()


@pytest.mark.parametrize("concepts", [[], ["", "fox"], ["style:"], ["fox", " fox"]])
def test_no_concept_and_one_twice_are_errors(random_model: StableDiffusion, concepts: list[str]) -> None:
    with pytest.raises(GiftError, match="concept"):
        Workbench.of(random_model, concepts)


@pytest.mark.parametrize("concept", ["mushroom", ["mushroom", "ant", "cat"], ["category:food", "style:noto"]], ids=str)
@pytest.mark.parametrize("n", [4, 7])
def test_drawn_sets_hold_what_was_asked(art_model: str, concept: str | list[str], n: int) -> None:
    bench = Workbench.of(load(art_model), concept)
    harmful, safe = bench.concept_set(n), bench.safe_set(n)
    assert len(harmful) == n * len(bench.concepts)  # so few that each concept has all of them
    assert len(safe) == n
    assert not set(harmful.prompts) & set(safe.prompts)
    again = bench.concept_set(n)
    assert torch.equal(harmful.latents, again.latents)


def test_no_safe_prompt_shows_any_of_several_concepts(art_model: str) -> None:
    bench = Workbench.of(load(art_model), ["category:food", "style:noto", "ant"])
    art = load_art()
    foods = {o.name for o in art.objects if o.category == "food"}
    for name in ("ant", *foods):
        assert bench.shown(Ask("", 0, name, "openmoji"))
    assert bench.shown(Ask("", 0, "bat", "noto"))
    assert not bench.shown(Ask("", 0, "bat", "openmoji"))
    prompts = bench.safe_set(60).prompts
    assert not [p for p in prompts if "in noto style" in p or any(art.object(f).noun == p.split(" in ")[0] for f in foods)]


def test_no_safe_line_names_any_of_several_free_concepts(random_model: StableDiffusion) -> None:
    bench = Workbench.of(random_model, ["a boat", "cats", "castle"])
    prompts = bench.safe_set(60).prompts
    assert prompts
    assert not [p for p in prompts if {"boat", "cat", "castle"} & set(p.split())]


def test_several_concepts_have_equal_shares(art_model: str) -> None:
    bench = Workbench.of(load(art_model), ["mushroom", "ant"])
    harmful = bench.concept_set(6)
    assert harmful.weights is not None
    pick = torch.multinomial(harmful.weights, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    counts = Counter("ant" in harmful.prompts[i] for i in harmful.which[pick].tolist())
    assert counts[True] / 4000 == pytest.approx(0.5, abs=0.05)


def test_a_defences_prompts_say_by_which_words_they_name_their_concept(art_model: str) -> None:
    bench = Workbench.of(load(art_model), ["mushroom", "style:noto"])
    harmful = bench.concept_set(12)
    assert harmful.mentions is not None
    nouns = dict(zip(harmful.prompts, harmful.mentions, strict=True))
    assert set(nouns.values()) == {"a mushroom", "noto"}
    assert all(mention in prompt for prompt, mention in nouns.items())
    assert all(mention == "a mushroom" for prompt, mention in nouns.items() if "mushroom" in prompt)


def test_a_concepts_name_inside_another_word_is_no_mention(random_model: StableDiffusion) -> None:
    bench = Workbench.of(random_model, ["ant", "elephant"])
    assert bench.mentions(["a photo of elephant", "a photo of ant", "a sea"]) == ["elephant", "ant", "ant"]


def test_a_balance_is_kept_and_pictures_are_split_but_never_too_thin(art_model: str) -> None:
    bench = Workbench.of(load(art_model), ["mushroom", "ant", "cat"])
    harmful = joined(bench.concept_sets(51), [1, 2, 5])
    assert len(harmful) == 51
    assert len(bench.concept_set(20)) == 3 * FEWEST
    pick = torch.multinomial(harmful.weights, 4000, replacement=True, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    counts = Counter(next(n for n in ("mushroom", "ant", "cat") if n in harmful.prompts[i]) for i in harmful.which[pick].tolist())
    assert [counts[n] / 4000 for n in ("mushroom", "ant", "cat")] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
    with pytest.raises(GiftError, match="for 3 concepts; give one positive share for each"):
        joined(bench.concept_sets(3), [1, 2])


def test_the_price_of_several_concepts_is_on_prompts_that_name_none(art_model: str) -> None:
    several = Workbench.of(load(art_model), ["category:food", "style:noto", "ant"])
    asks = several.safe_evaluation(80)
    assert len(asks) == 80
    assert not any(several.shown(ask) for ask in asks)
    alone = Workbench.of(load(art_model), "category:food")
    assert alone.safe_evaluation(80) != asks
    everything = [f"style:{style}" for style in load_art().trained_styles]
    birds = [*everything[1:], *(f"category:{name}" for name in load_art().categories if name != "bird")]
    with pytest.raises(GiftError, match=rf"only [1-7] prompts name none of the {len(birds)} concepts; evaluate fewer"):
        Workbench.of(load(art_model), birds).safe_evaluation(400)
    with pytest.raises(GiftError, match="only 0 prompts name none of the 6 concepts"):
        Workbench.of(load(art_model), everything).safe_set(8)


def test_the_attackers_set_is_real_drawings(art_model: str, tmp_path: Path) -> None:
    model = load(art_model)
    bench = Workbench.of(model, "mushroom")
    with pytest.raises(GiftError, match="no bundled drawings"):
        Workbench(model, (Concept("text", "x"),), bench.art, 0).attack_set(2)
    found = bench.attack_set(3, cache=tmp_path)
    assert len(found) == 3
    assert all("mushroom" in prompt for prompt in found.prompts)


@pytest.mark.parametrize("kind", ["concept_set", "attack_set"])
def test_a_users_folder_comes_first_and_bare_pictures_are_called_by_the_concept(
    random_model: StableDiffusion, folder: Path, kind: str
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    found = getattr(Workbench.of(random_model, "fox"), kind)(50, folder)
    assert len(found) == 3
    assert found.prompts == ["fox", "picture 1", "picture 2"]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_several_concepts_have_their_own_folders_or_are_drawn(random_model: StableDiffusion, folder: Path) -> None:
    bench = Workbench.of(random_model, ["a boat", "fox"])
    drawn, own = bench.concept_sets(40, [None, folder])
    assert (len(drawn), own.prompts, own.mentions) == (20, ["fox", "picture 1", "picture 2"], ["fox"] * 3)
    assert all("boat" in prompt for prompt in drawn.prompts)
    parts = parts_of(bench.concepts, [20, 3], joined([drawn, own]), own)
    assert torch.equal(parts["fox"].latents, own.latents)
    assert torch.equal(parts["a boat"].at(torch.tensor([7]))[1]["states"], drawn.at(torch.tensor([7]))[1]["states"])
    for folders in (folder, [folder], [folder] * 3):
        with pytest.raises(GiftError, match="concepts: 2; give one for each"):
            bench.concept_sets(40, folders)


def test_bare_safe_pictures_have_no_caption_and_are_counted(random_model: StableDiffusion, folder: Path) -> None:
    said: list[str] = []
    found = Workbench.of(random_model, "fox", say=said.append).safe_set(50, folder)
    assert found.prompts == ["", "picture 1", "picture 2"]
    assert "1 with the default caption" in said[0]


def test_evaluation_prompts_follow_the_seed(art_model: str) -> None:
    model = load(art_model)
    one, other = Workbench.of(model, "mushroom", 0), Workbench.of(model, "mushroom", 1)
    assert one.asks(6) == one.asks(6) != other.asks(6)
    assert one.safe_evaluation(6) == one.safe_evaluation(6) != other.safe_evaluation(6)


def test_real_pictures_are_the_asked_drawings_or_the_users(art_model: str, random_model: StableDiffusion, folder: Path) -> None:
    bench, art = Workbench.of(load(art_model), "mushroom"), load_art()
    asks = bench.safe_evaluation(5)
    drawn = bench.drawings(asks)
    assert drawn is not None
    wanted = [art.atlas(ask.style or "")[art.names.index(ask.name or "")] for ask in asks]
    assert torch.equal(drawn, bench._fitted(torch.stack(wanted)))
    theirs = Workbench.of(random_model, "fox")
    assert theirs.drawings(theirs.safe_evaluation(5)) is None
    given = theirs.drawings(theirs.safe_evaluation(5), folder)
    assert given is not None
    assert len(given) == 3


def test_an_attackers_sets_say_what_names_the_concept(art_model: str, random_model: StableDiffusion, folder: Path) -> None:
    food = Workbench.of(load(art_model), "category:food").attack_set(12)
    assert food.mentions is not None
    assert all(prompt.startswith(mention) for prompt, mention in zip(food.prompts, food.mentions, strict=True))
    assert Workbench.of(load(art_model), "style:noto").attack_set(3).mentions == ["noto"] * 3
    assert Workbench.of(random_model, "a red car").attack_set(9, folder).mentions == ["a red car"] * 3


def test_harmless_pictures_show_anything_but_the_concept(art_model: str, random_model: StableDiffusion, folder: Path) -> None:
    bench = Workbench.of(load(art_model), "style:noto")
    assert not [prompt for prompt in bench.harmless_set(60).prompts if "in noto style" in prompt]
    assert len(bench.harmless_set(60)) == 60
    own = Workbench.of(random_model, "fox")
    assert own.harmless_set(60, folder).prompts == ["", "picture 1", "picture 2"]
    with pytest.raises(GiftError, match="needs harmless pictures"):
        own.harmless_set(60)


def test_a_context_encodes_each_set_once(art_model: str) -> None:
    context = Context(Workbench.of(load(art_model), "mushroom"), "")
    harmless, concept = context.harmless_set(3), context.attack_set(3)
    assert context.harmless_set(3) is harmless
    assert context.attack_set(3) is concept
    assert not torch.equal(harmless.latents, concept.latents)
    assert len(context.harmless_set(4)) == 4
