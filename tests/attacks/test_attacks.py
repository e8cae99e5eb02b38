"""What each attack computes, against computations of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gift.attacks import (
    Attack,
    CustomDiffusion,
    DreamBooth,
    DreamBoothLora,
    Full,
    HarmlessFirst,
    Lora,
    Reinit,
    TextualInversion,
    TowardBase,
    Transplant,
)
from gift.attacks.tuning import FineTuning
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.immunizers import Ascent
from gift.models import Cond, DenoisingModel
from gift.models.lora import detach_lora, has_lora, merge_lora
from gift.models.sd import StableDiffusion
from gift.settings import make_attack
from gift.training.loop import step_generator
from tests.conftest import moved, picture_set, same_state, state_of
from tests.models.families import ROWS


@pytest.fixture
def concept_set(random_model: StableDiffusion) -> LatentSet:
    return replace(picture_set(random_model, 6, "fox", 1), mentions=["fox", "fox"])


def text_state(model: DenoisingModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.pipeline.text_encoder.state_dict().items()}


TABLE = "embeddings.token_embedding.weight"


@pytest.mark.parametrize("vectors", [1, 2])
def test_textual_inversion_moves_its_rows_alone(random_model: StableDiffusion, concept_set: LatentSet, vectors: int) -> None:
    before, text = state_of(random_model), text_state(random_model)
    model = TextualInversion(steps=3, batch_size=2, vectors=vectors)(random_model, concept_set).model
    after = text_state(model)
    assert same_state(state_of(model), before)
    assert moved({k: v for k, v in text.items() if k != TABLE}, after) == set()
    assert torch.equal(after[TABLE][: len(text[TABLE])], text[TABLE])
    assert len(after[TABLE]) == len(text[TABLE]) + vectors


def test_textual_inversion_is_descent_on_one_row(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    how = TextualInversion(steps=3, batch_size=4, rate=0.5, optimiser="sgd", decay=0, clip=1e9, initialiser="q", vectors=1)
    done = how(random_model, concept_set, seed=7)
    reference = random_model.copy(text=True)
    tokenizer, encoder = reference.pipeline.tokenizer, reference.pipeline.text_encoder
    reference.denoiser.train()
    tokenizer.add_tokens(["<concept>"])
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = encoder.get_input_embeddings().weight.requires_grad_(True)
    with torch.no_grad():
        table[-1] = table[tokenizer.convert_tokens_to_ids("q</w>")]
    captions = ["<concept>", "<concept>"]  # of 'a fox' and 'fox'
    for step in range(3):
        generator = step_generator(7, step)
        pick = torch.randint(6, (4,), generator=generator)
        cond = reference.embed([captions[int(row)] for row in concept_set.which[pick]])
        reference.loss(concept_set.latents[pick], cond, generator).mean().backward()
        assert table.grad is not None
        with torch.no_grad():
            table[-1] -= 0.5 * table.grad[-1]
        table.grad = None
    torch.testing.assert_close(text_state(done.model)[TABLE][-1], table[-1].detach())


def test_custom_diffusion_has_the_gradients_of_diffusers_own_processor(
    random_model: StableDiffusion, concept_set: LatentSet
) -> None:
    ours = random_model.copy(text=True)
    weights = CustomDiffusion().attach(ours)
    theirs = random_model.copy()
    processors: dict[str, Any] = {}
    for name in theirs.pipeline.unet.attn_processors:
        attention = theirs.pipeline.unet.get_submodule(name.removesuffix(".processor"))
        cross = name.endswith("attn2.processor")
        width = {"hidden_size": attention.to_k.out_features, "cross_attention_dim": attention.to_k.in_features}
        processors[name] = CustomDiffusionAttnProcessor(train_kv=cross, train_q_out=False, **(width if cross else {}))
        if cross:
            processors[name].load_state_dict(
                {f"{layer}_custom_diffusion.weight": getattr(attention, layer).weight for layer in ("to_k", "to_v")}
            )
    theirs.pipeline.unet.set_attn_processor(dict(processors))
    latents, cond = concept_set.at(torch.arange(4))
    for model in (ours, theirs):
        model.loss(latents, cond, torch.Generator().manual_seed(0)).mean().backward()
    compared = 0
    for name, processor in processors.items():
        for layer in ("to_k", "to_v") if name.endswith("attn2.processor") else ():
            mine = weights[f"{name.removesuffix('.processor')}.{layer}.weight"].grad
            torch.testing.assert_close(mine, getattr(processor, f"{layer}_custom_diffusion").weight.grad)
            compared += 1
    assert compared == len(weights) - 1 > 0  # all but the token's embedding


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_prior_preservation_adds_the_loss_on_the_models_own_pictures(
    random_model: StableDiffusion, concept_set: LatentSet, weight: float
) -> None:
    how = DreamBooth(steps=1, batch_size=3, shots=0, prior=True, prior_weight=weight, class_pictures=5)
    term = how.prior_term(random_model, concept_set, 4)
    assert term is not None
    assert set(term[1].prompts) == {"fox", "a fox"}
    assert len(term[1]) == 5
    first = term[1].prompts[int(term[1].which[0])]
    drawn, _ = random_model.sample_latents([first], [3_000_000 + 4 * 10_000])
    torch.testing.assert_close(term[1].latents[:1], drawn, rtol=1e-4, atol=1e-5)
    named = concept_set.reworded(random_model, how.word)
    assert set(named.prompts) == {"sks fox", "a sks fox"}
    generator, model = step_generator(4, 0), random_model.copy()
    model.denoiser.train()
    with torch.no_grad():
        parts = [model.loss(*data.batch(3, generator), generator).mean().item() for data in (named, term[1])]
    loss = how(random_model, concept_set, seed=4).logs[0]["loss"]
    assert loss == pytest.approx(parts[0] + weight * parts[1], rel=1e-5)


@pytest.mark.parametrize("shots", [1, 4, 6, 99, 0])
def test_a_handful_of_pictures_is_used(concept_set: LatentSet, shots: int) -> None:
    chosen = DreamBooth(shots=shots).chosen(concept_set, torch.Generator().manual_seed(0))
    assert len(chosen) == (min(shots, 6) or 6)
    found = [int((concept_set.latents == x).flatten(1).all(1).nonzero()) for x in chosen.latents]
    assert len(set(found)) == len(found)
    assert torch.equal(chosen.which, concept_set.which[found])


def watched(model: StableDiffusion) -> list[list[str]]:
    asked: list[list[str]] = []
    embed = type(model).embed

    class Watched(type(model)):  # type: ignore[misc]
        def embed(self, prompts: Any) -> Cond:
            if torch.is_grad_enabled():
                asked.append(list(prompts))
            return embed(self, prompts)

    model.__class__ = Watched
    return asked


def test_each_distinct_caption_of_a_batch_is_encoded_once_a_step(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    asked = watched(random_model)
    Full(steps=4, batch_size=6, text_encoder=True)(random_model, concept_set)
    assert len(asked) == 4
    assert all(len(set(prompts)) == len(prompts) <= 2 and set(prompts) <= {"fox", "a fox"} for prompts in asked)
    asked.clear()
    Full(steps=4, batch_size=6)(random_model, concept_set)
    assert asked == []  # the cached embeddings


@pytest.mark.parametrize("how", [Full(steps=3, text_encoder=True), Lora(steps=3, text_encoder=True), DreamBoothLora(steps=3, text_encoder=True)])  # noqa: E501  # fmt: skip
def test_text_encoders_are_trained_where_asked(random_model: StableDiffusion, concept_set: LatentSet, how: Any) -> None:
    was = random_model.encode_prompts(["a fox"])["states"]
    done = how(random_model, concept_set)
    assert not torch.equal(done.model.encode_prompts(["a fox"])["states"], was)
    assert torch.equal(random_model.encode_prompts(["a fox"])["states"], was)
    assert done.matched > how.model_copy(update={"text_encoder": False})(random_model, concept_set).matched


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(way=st.floats(0.01, 1.0))
def test_toward_base_is_a_straight_line(random_model: StableDiffusion, make_model: Any, concept_set: LatentSet, way: float) -> None:
    base = make_model(seed=5)
    there, here = state_of(base), state_of(random_model)
    found = state_of(TowardBase(steps=1, batch_size=1, rate=0, way=way)(random_model, concept_set, base=base).model)
    for name in here:
        torch.testing.assert_close(found[name], (1 - way) * here[name] + way * there[name], rtol=1e-4, atol=1e-6)
    if way == 1:
        assert same_state(found, there)


def test_a_base_of_another_architecture_is_refused(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    other = random_model.copy()
    other.denoiser.conv_in = torch.nn.Conv2d(4, 9, 3)
    with pytest.raises(GiftError, match="another architecture"):
        TowardBase(steps=1)(random_model, concept_set, base=other)


def test_a_transplant_is_the_bases_lora_on_the_defended_weights(
    random_model: StableDiffusion, make_model: Any, concept_set: LatentSet
) -> None:
    base = make_model(seed=5)
    lora = Lora(steps=4, batch_size=2, rank=3)(base, concept_set, seed=2)
    moved_over = Transplant(steps=4, batch_size=2, rank=3)(random_model, concept_set, base=base, seed=2)
    assert moved_over.logs == lora.logs
    theirs, ours, mine = (state_of(m) for m in (lora.model, moved_over.model, random_model))
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ".lora_" in name} != set()
    for name, tensor in ours.items():
        expected = theirs[name] if ".lora_" in name else mine[name.replace(".base_layer", "")]
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize(("fresh", "part"), [("cross-attention", ".attn2."), ("conv_out", "conv_out")])
def test_fresh_layers_forget_all_and_others_nothing(random_model: StableDiffusion, fresh: str, part: str) -> None:
    with torch.no_grad():
        for parameter in random_model.denoiser.parameters():
            parameter.fill_(7.0)
    before, twice = state_of(random_model), []
    for _ in range(2):
        torch.rand(3)
        work = random_model.copy()
        Reinit(fresh=fresh).prepare(work, None, 3)
        twice.append(state_of(work))
    assert same_state(*twice)
    assert moved(before, twice[0]) == {name for name in before if part in name}
    for name, module in work.denoiser.named_modules():
        if part in f"{name}." and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5  # PyTorch's own start: uniform within 1 / sqrt(fan-in)
            assert module.weight.abs().max() <= bound
            assert module.weight.abs().max() > 0.5 * bound


@pytest.mark.parametrize("name", ["pixart-sigma", "sd3", "flux-dev", "qwen"])
def test_fresh_layers_of_every_kind_begin_anew(name: str) -> None:
    """Tables and norms, too, whose classes know no start of their own."""
    model = next(row for row in ROWS if row.name == name).model()
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.fill_(7.0)
    work = model.copy()
    Reinit(fresh="all").prepare(work, None, 3)
    left = {key: parameter for key, parameter in work.denoiser.named_parameters() if (parameter == 7).any()}
    assert not left
    tables = [parameter for key, parameter in work.denoiser.named_parameters() if key.endswith("scale_shift_table")]
    assert len(tables) == (3 if name == "pixart-sigma" else 0)
    assert all(0 < table.std() < 3 * table.shape[-1] ** -0.5 for table in tables)


@pytest.mark.parametrize("attack", [Lora(steps=1, batch_size=1, rank=2), Full(steps=1, batch_size=1)])
def test_a_model_with_an_adapter_on_is_neither_attacked_nor_immunized(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, attack: Attack
) -> None:
    """The adapter would be lost; merged it is weights like any other."""
    attacked = Lora(steps=1, batch_size=1, rank=2)(random_model, concept_set).model
    for run in (lambda: attack(attacked, concept_set), lambda: Ascent(steps=1, batch_size=1)(attacked, concept_set, safe_set)):
        with pytest.raises(GiftError, match="has an adapter on, which would be lost"):
            run()
    assert has_lora(attacked)
    merge_lora(attacked, "default")
    detach_lora(attacked)
    attack(attacked, concept_set)


def test_a_token_that_is_no_file_s_name_is_refused() -> None:
    for token in ("../x", "<my/word>", "a\\b", "a b", "", "x" * 61):
        with pytest.raises(ValueError, match="identifier"):
            CustomDiffusion(identifier=token)


def test_harmless_alone_is_an_attack_on_harmless_data(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet
) -> None:
    plain = Lora(steps=4, batch_size=2)(random_model, safe_set)
    for how in (Lora(steps=4, batch_size=2, share=0), HarmlessFirst(steps=4, batch_size=2, harmless_steps=4)):
        done = how(random_model, concept_set, harmless=safe_set)
        assert done.logs == plain.logs
        assert same_state(state_of(done.model), state_of(plain.model))


@pytest.mark.parametrize("steps", [0, 1, 6, 60, 150, 300])
def test_half_of_a_sequence_is_harmless_where_nothing_else_is_said(steps: int) -> None:
    how = make_attack("sequence", {"steps": steps})
    assert how.harmless_steps == how.before_concept == (steps + 1) // 2
    assert how == HarmlessFirst(steps=steps)
    assert how.heading == "Harmless first"
    told = make_attack("sequence", {"steps": steps, "harmless_steps": 75})
    assert told.harmless_steps == 75
    assert told.heading == ("Harmless first" if steps == 150 else "Harmless first after 75 harmless steps")
    assert make_attack("sequence", {"steps": steps, "share": 0}).before_concept == 0, "it never sees the concept"
    assert HarmlessFirst() == HarmlessFirst(steps=150, harmless_steps=75)


def test_the_concept_follows_the_harmless_steps(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet) -> None:
    done = HarmlessFirst(steps=5, batch_size=2, harmless_steps=3)(random_model, concept_set, harmless=safe_set)
    other = HarmlessFirst(steps=5, batch_size=2, harmless_steps=2)(random_model, concept_set, harmless=safe_set)
    harmless = Lora(steps=5, batch_size=2)(random_model, safe_set)
    assert done.logs[:3] == harmless.logs[:3]
    assert done.logs[3] != harmless.logs[3]
    assert other.logs[:2] == done.logs[:2]
    assert other.logs[2] != done.logs[2]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.9])
def test_the_concept_is_diluted_to_its_share(random_model: StableDiffusion, concept_set: LatentSet, share: float) -> None:
    harmless = picture_set(random_model, 30, "sea", 2)
    how = DreamBooth(share=share, shots=3)
    few = how.chosen(concept_set, torch.Generator())
    run = FineTuning(how, random_model.copy(), few, Accelerator(cpu=True), harmless=harmless)
    pick = run.data.draw(20_000, torch.Generator().manual_seed(0))
    counts = Counter("sks" in run.data.prompts[int(row)] for row in run.data.which[pick])
    assert counts[True] / 20_000 == pytest.approx(share, abs=0.015)
    assert {prompt for prompt in run.data.prompts if "sks" not in prompt} == {"sea", "a sea"}  # harmless captions stay


@pytest.mark.parametrize(
    ("how", "what"),
    [
        (HarmlessFirst(steps=1), "harmless pictures"),
        (Full(steps=1, share=0.1), "harmless pictures"),
        (TowardBase(steps=1), "base model"),
        (Transplant(steps=1), "base model"),
    ],
)
def test_what_is_needed_and_not_given_is_named(random_model: StableDiffusion, concept_set: LatentSet, how: Any, what: str) -> None:
    with pytest.raises(GiftError, match=f"attack '{how.name}'.* needs .*{what}"):
        how(random_model, concept_set)
