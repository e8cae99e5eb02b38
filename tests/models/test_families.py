"""One table: every family is a row, keeps the same promises, and says what its plain pipeline says (field failures 17, 20, 30)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors.torch import save_file

from gift.attacks import ATTACKS, Full, Lora
from gift.data.latents import LatentSet
from gift.errors import GiftError, NonFiniteError
from gift.immunizers import IMMUNIZERS, Attacker, Gift
from gift.models import DenoisingModel, load, take
from gift.models.latent import LatentDiffusion
from gift.models.loading import FAMILIES, family_of
from gift.models.lora import LORA_FILE
from gift.models.parameters import groups_of, named_by
from gift.settings import make_attack, make_immunizers
from tests.conftest import State, moved, picture_set, same_state, state_of
from tests.models.families import ROWS, Row

PROMPTS, SEEDS = ["a fox", "the sea"], [3, 4]
every = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name, scope="module")


@pytest.fixture(scope="module")
def model(row: Row) -> Iterator[LatentDiffusion]:
    """The row's model; that no test changes it is checked at the end."""
    made = row.model()
    before = whole_state(made)
    yield made
    assert same_state(whole_state(made), before)


@pytest.fixture(scope="module")
def sets(model: LatentDiffusion) -> tuple[LatentSet, LatentSet]:
    """A concept's pictures, and others."""
    return picture_set(model, 4, "fox", 1), picture_set(model, 4, "sea", 2)


def whole_state(model: DenoisingModel) -> State:
    """All weights of the pipeline, by their part."""
    parts = {name: part for name, part in model.pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}/{key}": t.detach().clone() for name, part in parts.items() for key, t in part.state_dict().items()}


def drawn(pipeline: Any, row: Row, side: int) -> torch.Tensor:
    """What any user of diffusers draws with PROMPTS and SEEDS: uint8 pictures."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    how = {"num_inference_steps": 3, "height": side, "width": side, "output_type": "np", **row.guided}
    pictures = pipeline(PROMPTS, generator=generators, **how).images
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).mul(255).round().to(torch.uint8)


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a.int() - b.int()).abs().max() <= 1)


def generated(model: DenoisingModel) -> torch.Tensor:
    return model.generate(PROMPTS, SEEDS, steps=3, guidance=2.0)


def test_the_page_on_new_families_names_what_there_is() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.split("## A new family\n")[1].split("\n## ")[0]
    members = [
        name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert len(members) >= 10
    for name in members:
        assert name in LatentDiffusion.__annotations__ or hasattr(LatentDiffusion, name) or name in DenoisingModel.__annotations__
    named = {name for name in LatentDiffusion.__abstractmethods__ if name not in members}
    assert not named, f"a family must define {named}, and the page doesn't say so"
    for path in re.findall(r"`((?:src|tests)/[\w/.]+)`", section):
        assert (Path(__file__).resolve().parents[2] / path).exists()


def options(pipeline: Any) -> dict[str, Any]:
    """What the pipeline was made with beside its parts."""
    return {name: value for name, value in pipeline.config.items() if name[0] != "_" and name not in pipeline.components}


def test_every_family_has_a_row() -> None:
    assert {row.family for row in ROWS} == set(FAMILIES.values())
    assert all(family.pipeline_name == name for name, family in FAMILIES.items())


@every
def test_it_is_small_and_told(row: Row, model: LatentDiffusion) -> None:
    assert sum(p.numel() for p in model.denoiser.parameters()) < 300_000
    told = model.describe()
    assert told.startswith(f"{row.family.pipeline_name}, {row.family.denoiser_class} with ")
    assert told.endswith(f", {row.prediction}, {model.image_size} px")
    assert list(model.tokenizers) == list(model.text_encoders)


@every
def test_the_loss_is_the_mean_square_against_the_right_target(row: Row, model: LatentDiffusion) -> None:
    latents = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    prompts, generator = ["a fox", "sea", "a red fox"], torch.Generator().manual_seed(4)
    noise = torch.randn(latents.shape, generator=generator)
    config = model.pipeline.scheduler.config
    if row.prediction == "flow":
        sigma = 1 / (1 + torch.exp(-torch.randn(3, generator=generator).double()))
        if not config.use_dynamic_shifting:
            sigma = config.shift * sigma / (1 + (config.shift - 1) * sigma)
        steps, mix = (sigma * 1000).float(), sigma.float().view(3, 1, 1, 1)
        noisy, target = (1 - mix) * latents + mix * noise, noise - latents
    else:
        steps = torch.randint(1000, (3,), generator=generator)
        ends = [config.beta_start, config.beta_end]
        low, high = (b**0.5 for b in ends) if config.beta_schedule == "scaled_linear" else ends
        betas = torch.linspace(low, high, 1000, dtype=torch.float64) ** (2 if config.beta_schedule == "scaled_linear" else 1)
        kept = torch.cumprod(1 - betas, 0)[steps].float().view(3, 1, 1, 1)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        target = noise if row.prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * latents
    with torch.no_grad():
        output = row.output(model.pipeline, noisy, steps, prompts)
        loss = model.loss(latents, model.encode_prompts(prompts), torch.Generator().manual_seed(4))
    expected = torch.stack([((output[i] - target[i]) ** 2).mean() for i in range(3)])
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@every
def test_a_partial_run_ends_where_the_denoiser_would_go_on(row: Row, model: LatentDiffusion) -> None:
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watch(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        calls.append((model.grid(x), model.grid(output[0])))

    handle = model.denoiser.register_forward_hook(watch, with_kwargs=True)
    whole, end = model.sample_latents(PROMPTS, SEEDS, steps=4, guidance=1.0)
    handle.remove()
    assert len(calls) == 4
    assert float(end) == 0
    cond, times = model.encode_prompts(PROMPTS), model.pipeline.scheduler.timesteps.clone()
    for stop in (1, 2, 3):
        latents, at = model.sample_latents(PROMPTS, SEEDS, steps=4, guidance=1.0, stop_after=stop)
        assert float(at) == float(times[stop])
        torch.testing.assert_close(latents, calls[stop][0], rtol=1e-4, atol=1e-5)
        with torch.no_grad():  # the pipeline's own call of the denoiser is what `predict` computes
            output = model.predict(latents, at.expand(2), cond)
        assert output.shape == latents.shape
        torch.testing.assert_close(output, calls[stop][1][:, : output.shape[1]], rtol=1e-4, atol=1e-5)
    again, at = model.sample_latents(PROMPTS, SEEDS, steps=4, guidance=1.0, stop_after=4)
    assert float(at) == 0
    torch.testing.assert_close(again, whole)


@every
def test_large_pictures_go_through_in_parts(row: Row, model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, seeds = ["a fox", "the sea", "a tree", "fox", "sea"], [1, 2, 3, 4, 5]
    images = torch.randint(256, (5, 3, model.image_size, model.image_size), generator=torch.Generator().manual_seed(0)).byte()
    together = model.sample_latents(prompts, seeds, steps=3, stop_after=2), model.encode_images(images)
    monkeypatch.setattr("gift.models.latent.PLAIN_SIDE", model.image_size // 4)
    assert (model.at_once(32), model.at_once(48), model.at_once(1)) == (2, 3, 1)
    sizes: list[int] = []
    handle = model.denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs.get("hidden_states", args[0] if args else ()))), with_kwargs=True
    )
    apart, at = model.sample_latents(prompts, seeds, steps=3, stop_after=2)
    handle.remove()
    assert max(sizes) <= 6  # three prompts, with and without
    torch.testing.assert_close(apart, together[0][0], rtol=1e-4, atol=1e-5)
    assert float(at) == float(together[0][1])
    torch.testing.assert_close(model.encode_images(images), together[1], rtol=1e-4, atol=1e-5)


@every
def test_prompts_are_encoded_one_by_one_into_one_shape(row: Row, model: LatentDiffusion) -> None:
    prompts = ["a fox", "a very long prompt " * 9, ""]
    together = model.encode_prompts(prompts)
    assert all(len(tensor) == 3 and not tensor.requires_grad for tensor in together.values())
    for i, prompt in enumerate(prompts):
        torch.testing.assert_close(take(together, torch.tensor([i])), model.encode_prompts([prompt]), rtol=1e-4, atol=1e-5)
    own = model.copy(text=True)
    for encoder in own.text_encoders.values():
        encoder.requires_grad_(True)
    torch.stack([t.square().sum() for t in own.embed(prompts).values() if t.requires_grad]).sum().backward()
    for encoder in own.text_encoders.values():
        assert any(p.grad is not None and p.grad.any() for p in encoder.parameters())


@every
def test_pictures_go_to_scaled_latents_and_back(row: Row, model: LatentDiffusion) -> None:
    side = model.image_size
    images = torch.randint(256, (3, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents = model.encode_images(images)
    assert latents.shape == (3, *model.latent_shape)
    assert len(set(model.latent_shape[1:])) == 1
    shift, factor = (torch.tensor(values).view(-1, 1, 1) for values in model.latent_scale)
    with torch.no_grad():
        raw = model.vae_mean(images.float() / 127.5 - 1)
        expected = ((model.vae_pictures(raw).clamp(-1, 1) + 1) * 127.5).round()
    torch.testing.assert_close(latents, (raw - shift) * factor)
    assert alike(model.decode(latents), expected)


@every
def test_the_autoencoder_is_fp32_and_its_overflow_is_told(row: Row, model: LatentDiffusion) -> None:
    half = row.family(row.make().to(torch.float16), "half", row.size)
    assert half.pipeline.vae.dtype == torch.float32
    with torch.no_grad():
        next(half.pipeline.vae.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the autoencoder gives NaN or infinite latents; use it in fp32"):
        half.encode_images(torch.zeros(1, 3, model.image_size, model.image_size))


@every
def test_copies_share_what_is_not_trained(row: Row, model: LatentDiffusion) -> None:
    shared, own = model.copy(), model.copy(text=True)
    for other in (shared, own):
        assert same_state(whole_state(other), whole_state(model))
        assert not {p.data_ptr() for p in other.denoiser.parameters()} & {p.data_ptr() for p in model.denoiser.parameters()}
        assert other.pipeline.vae is model.pipeline.vae
        assert other.pipeline.scheduler is not model.pipeline.scheduler
        assert (other.source, other.image_size, type(other)) == (model.source, model.image_size, type(model))
        assert options(other.pipeline) == options(model.pipeline)
    for name in (*model.text_encoders, *(name.replace("text_encoder", "tokenizer") for name in model.text_encoders)):
        assert getattr(shared.pipeline, name) is getattr(model.pipeline, name)
        assert getattr(own.pipeline, name) is not getattr(model.pipeline, name)
    assert torch.equal(generated(own), generated(model))


@every
def test_groups_of_weights_are_the_familys(row: Row, model: LatentDiffusion) -> None:
    names = [name for name, _ in model.denoiser.named_parameters()]
    assert list(named_by(model.denoiser, "cross-attention")) == [name for name in names if row.cross(name)]
    assert list(named_by(model.denoiser, "non-cross-attention")) == [name for name in names if not row.cross(name)]
    attention = set(named_by(model.denoiser, "attention"))
    assert attention == {name for name in names if any(f".{part}." in name for part in ("attn", "attn1", "attn2"))}
    assert set(named_by(model.denoiser, "cross-attention")) < attention
    projections = named_by(model.denoiser, "attention-projections")
    assert set(projections) == {name for name in attention if ".norm" not in name}
    assert groups_of(model.denoiser) is row.family.groups


@every
def test_a_saved_model_opens_as_it_was(row: Row, model: LatentDiffusion, tmp_path: Path) -> None:
    opened = load(model.save(tmp_path / "m"), device="cpu", size=row.size)
    assert type(opened) is row.family
    assert same_state(whole_state(opened), whole_state(model))
    assert opened.describe() == model.describe()
    assert torch.equal(generated(opened), generated(model))


@every
def test_parts_that_are_missing_are_told(row: Row, model: LatentDiffusion, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "m")
    for part in (model.denoiser_part, "vae", *model.text_encoders):
        (file,) = (folder / part).glob("*.safetensors")
        held = file.read_bytes()
        file.unlink()
        with pytest.raises(GiftError, match=rf"{part} holds no \.safetensors weights"):
            load(folder)
        file.write_bytes(held)
    for encoder in model.text_encoders:
        tokenizer = folder / encoder.replace("text_encoder", "tokenizer")
        tokenizer.rename(folder / "aside")
        with pytest.raises(GiftError, match=f"{tokenizer.name} holds no vocabulary"):
            load(folder)
        (folder / "aside").rename(tokenizer)


@every
def test_another_size_is_taken_up(row: Row, model: LatentDiffusion) -> None:
    larger = row.family(model.pipeline, "larger", 2 * model.image_size)
    pictures = larger.generate(["a fox"], [1], steps=2)
    assert pictures.shape[-2:] == (2 * model.image_size,) * 2
    assert larger.encode_images(pictures).shape[1:] == larger.latent_shape
    assert larger.copy().image_size == larger.image_size == 2 * model.image_size
    with pytest.raises(GiftError, match="pictures of 3 px are not possible; give a multiple of"):
        row.family(model.pipeline, "odd", 3)


@every
def test_the_fewest_steps_draw_and_fewer_are_told(row: Row, model: LatentDiffusion) -> None:
    least = model.least_steps
    assert model.generate(["a fox"], [1], steps=least).shape == (1, 3, model.image_size, model.image_size)
    with pytest.raises(GiftError, match=f"can't be drawn from in {least - 1} sampler steps; use at least {least}"):
        model.generate(["a fox"], [1], steps=least - 1)


@every
def test_zero_steps_change_nothing(row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet]) -> None:
    was = generated(model)
    for out in (Gift(steps=0)(model, *sets), *(how(model, sets[0]).model for how in (Full(steps=0), Lora(steps=0)))):
        assert torch.equal(generated(out), was)
        if not any("lora" in name for name in state_of(out)):
            assert same_state(state_of(out), state_of(model))


@every
@pytest.mark.parametrize("name", IMMUNIZERS)
def test_every_immunizer_moves_the_denoiser_alone(
    row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet], name: str
) -> None:
    small: dict[str, Any] = {"steps": 1, "batch_size": 2, "attacker": {"steps": 1, "batch_size": 2}, "settle_steps": 1}
    small |= {"noise_weight": 0.5, "sampler_steps": 3}
    (how,) = make_immunizers(name, {k: v for k, v in small.items() if k in IMMUNIZERS[name].model_fields and name != "none"})
    if name == "rescaled" and not isinstance(model.denoiser, UNet2DConditionModel):
        with pytest.raises(GiftError, match="written for UNets"):
            how(model, *sets)
        return
    before, out = whole_state(model), how(model, *sets)
    after = whole_state(out)
    assert before.keys() == after.keys()
    changed = moved(before, after)
    assert bool(changed) is (name != "none")
    assert all(key.startswith(f"{model.denoiser_part}/") for key in changed)


@every
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_runs_or_says_why_not(
    row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet], tmp_path: Path, name: str
) -> None:
    concept, harmless = sets
    how = make_attack(name, {"steps": 1, "batch_size": 2})
    if name in row.refused:
        with pytest.raises(GiftError) as caught:
            how(model, concept, harmless=harmless, base=model)
        assert "\n" not in str(caught.value)
        return
    attacked = how(model, concept, harmless=harmless, base=model)
    assert not torch.equal(generated(attacked.model), generated(model)) or name in {"textual-inversion", "custom-diffusion"}
    assert any(attacked.save(tmp_path / "files").rglob("*.safetensors"))


@every
def test_immunized_weights_draw_the_same_in_plain_diffusers(
    row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet], tmp_path: Path
) -> None:
    out = Gift(steps=2, batch_size=2, settle_steps=1, attacker=Attacker(steps=1, batch_size=2))(model, *sets)
    pipeline = DiffusionPipeline.from_pretrained(out.save(tmp_path / "m"), **dict.fromkeys(row.absent))
    assert type(pipeline).__name__ == row.family.pipeline_name
    assert not torch.equal(generated(out), generated(model))
    assert alike(drawn(pipeline, row, model.image_size), generated(out))


@every
def test_full_fine_tuning_moves_every_weight_that_it_should(
    row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet], tmp_path: Path
) -> None:
    attacked = Full(steps=2, batch_size=2, train="attention", rate=1e-2)(model, sets[0])
    assert moved(state_of(model), state_of(attacked.model)) <= set(named_by(model.denoiser, "attention"))
    assert len(moved(state_of(model), state_of(attacked.model))) > 1
    text = Full(steps=1, batch_size=2, text_encoder=True)(model, sets[0])
    assert {key.split("/")[0] for key in moved(whole_state(model), whole_state(text.model))} == {
        model.denoiser_part,
        *model.text_encoders,
    }
    pipeline = DiffusionPipeline.from_pretrained(text.save(tmp_path / "m"), **dict.fromkeys(row.absent))
    assert alike(drawn(pipeline, row, model.image_size), generated(text.model))


@every
def test_weights_held_in_bf16_take_adapters_alone(
    row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet], tmp_path: Path
) -> None:
    low = load(model.save(tmp_path / "m"), size=model.size, held_in="bf16", device="cpu")
    assert {p.dtype for p in low.denoiser.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in low.pipeline.vae.parameters()} == {torch.float32}
    assert " weights in bfloat16, " in low.describe()
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        exact, rounded = (m.predict(latents, torch.tensor([300, 700]), m.encode_prompts(PROMPTS)) for m in (model, low))
    assert rounded.dtype == torch.float32
    assert (exact - rounded).norm() < 0.05 * exact.norm()
    assert generated(low).shape == (2, 3, model.image_size, model.image_size)
    before = state_of(low)
    attacked = Lora(steps=2, batch_size=2, rank=2)(low, sets[0]).model
    adapters = [p for name, p in attacked.denoiser.named_parameters() if "lora_" in name]
    assert {p.dtype for p in adapters} == {torch.float32}
    assert any(p.any() for name, p in attacked.denoiser.named_parameters() if "lora_B" in name)
    attacker = Attacker(steps=1, kinds=("lora",), rank=2, batch_size=2)
    how = Gift(steps=2, settle_steps=1, batch_size=2, attacker=attacker, adapter_rank=2, safe_rate=0.1, immunize_rate=0.1)
    after = state_of(how(low, *sets))
    assert moved(before, after)
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert same_state(state_of(low), before)
    with pytest.raises(GiftError, match="train a LoRA"):
        Full(steps=1, batch_size=2)(low, sets[0])


@every
@pytest.mark.parametrize("text", [False, True])
def test_a_lora_file_changes_the_picture_elsewhere(
    row: Row, model: LatentDiffusion, sets: tuple[LatentSet, LatentSet], tmp_path: Path, text: bool
) -> None:
    how = Lora(steps=4, batch_size=2, rate=5e-2, text_encoder=text)
    readable = [part for part in getattr(model.pipeline, "_lora_loadable_modules", []) if part.startswith("text_encoder")]
    if text and not readable:
        with pytest.raises(GiftError, match="diffusers reads no LoRA for the text encoder"):
            how(model, sets[0])
        return
    attacked = how(model, sets[0])
    lora = {name for name in state_of(attacked.model) if "lora_" in name}
    for target in ("to_k", "to_q", "to_v", "to_out.0", *model.more_lora_targets):
        assert any(f".{target}.lora_" in name for name in lora)
    folder, theirs = attacked.save(tmp_path / "lora"), model.copy(text=True).pipeline
    if (folder / LORA_FILE).exists():
        theirs.load_lora_weights(folder)
    else:
        part = model.denoiser_part
        setattr(theirs, part, PeftModel.from_pretrained(getattr(theirs, part), folder / part).base_model.model)
    seen = drawn(theirs, row, model.image_size)
    assert not torch.equal(seen, drawn(model.pipeline, row, model.image_size))
    assert alike(seen, generated(attacked.model))


@every
def test_its_one_file_checkpoints_are_known_by_their_names(row: Row, tmp_path: Path) -> None:
    if not row.family.single_file:
        pytest.skip("the family has no one-file checkpoints")
    save_file({f"x.{row.family.single_file}y": torch.zeros(1), "other": torch.zeros(1)}, tmp_path / "m.safetensors")
    assert family_of(tmp_path / "m.safetensors") is row.family


@every
def test_prompts_that_are_longer_than_it_reads_are_known(row: Row) -> None:
    model = row.model()
    most = max(model.prompt_tokens(part) for part in model.tokenizers)
    long = "fox " * (most + 1)
    found = model.too_long(["a fox", long, "", long])
    assert found == [long]
    cut = {name: tensor[0] for name, tensor in model.encode_prompts([long + " owl"]).items()}
    assert all(torch.equal(tensor, cut[name]) for name, rows in model.encode_prompts([long]).items() for tensor in rows)
    assert model.too_long([]) == []


@every
def test_a_prompt_that_just_fits_is_not_too_long(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are several text encoders, it is too long only where no one reads it to its end."""
    model = row.model()
    for spare, cut in ((0, []), (-1, ["a red fox"])):
        counts = {part: len(words(model.asked(["a red fox"]))["input_ids"][0]) for part, words in model.tokenizers.items()}
        monkeypatch.setattr(type(model), "prompt_tokens", lambda self, part, most=counts, spare=spare: most[part] + spare)
        assert model.too_long(["a red fox"]) == cut
