"""Training sets: encoded once, found again by content alone, drawn the same way from the same seed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gift.bench.workbench import Workbench
from gift.data.art import load_art
from gift.data.folder import load_folder
from gift.data.latents import LatentSet, constant_latents, draw_set, encode_set, fingerprint, join_sets
from gift.data.prompts import Ask
from gift.errors import GiftError, NonFiniteError
from gift.models import Cond, load
from gift.models.sd import StableDiffusion
from gift.settings import make_attack

CAPTIONS = ["a fox", "the sea", "a fox"]


def pictures(n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture
def counted(random_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of `encode_images` was given."""
    calls: list[int] = []
    encode = StableDiffusion.encode_images

    def count(model: StableDiffusion, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return encode(model, images)

    monkeypatch.setattr(StableDiffusion, "encode_images", count)
    return calls


def test_a_set_holds_each_distinct_prompt_once(random_model: StableDiffusion) -> None:
    made = encode_set(random_model, pictures(), CAPTIONS)
    assert made.prompts == ["a fox", "the sea"]
    assert made.which.tolist() == [0, 1, 0]
    assert made.latents.shape == (3, *random_model.latent_shape)
    _, cond = made.at(torch.tensor([2, 1]))
    expected = random_model.encode_prompts(["a fox", "the sea"])
    torch.testing.assert_close(cond["states"], expected["states"])


def test_the_same_pictures_are_encoded_once(random_model: StableDiffusion, counted: list[int], tmp_path: Path) -> None:
    first = encode_set(random_model, pictures(), CAPTIONS, tmp_path)
    second = encode_set(random_model, pictures(), ["one", "two", "three"], tmp_path)
    plain = encode_set(random_model, pictures(), CAPTIONS)
    assert counted == [3, 3]  # the first and the one without a cache
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.latents, plain.latents)
    assert second.prompts == ["one", "two", "three"]


def one_byte_off() -> torch.Tensor:
    images = pictures()
    images[0, 0, 0, 0] ^= 1
    return images


def _other_vae(model: StableDiffusion) -> None:
    with torch.no_grad():
        next(model.pipeline.vae.parameters()).add_(1e-3)


def _other_norm(model: StableDiffusion) -> None:
    """The same weights in a network of another configuration."""
    weights = model.pipeline.vae.state_dict()
    model.pipeline.vae = type(model.pipeline.vae).from_config({**model.pipeline.vae.config, "norm_num_groups": 2})
    model.pipeline.vae.load_state_dict(weights)


def _other_scale(model: StableDiffusion) -> None:
    model.pipeline.vae.register_to_config(scaling_factor=0.5)


@pytest.mark.parametrize(
    ("images", "change"),
    [
        (pictures(seed=1), lambda _: None),
        (one_byte_off(), lambda _: None),
        (pictures().flip(0), lambda _: None),
        (pictures(), _other_vae),
        (pictures(), _other_norm),
        (pictures(), _other_scale),
    ],
    ids=["other pictures", "one byte", "another order", "another autoencoder", "its configuration", "another latent scale"],
)
def test_whatever_changes_the_latents_is_a_miss(
    random_model: StableDiffusion,
    counted: list[int],
    tmp_path: Path,
    images: torch.Tensor,
    change: Callable[[StableDiffusion], None],
) -> None:
    encode_set(random_model, pictures(), CAPTIONS, tmp_path)
    change(random_model)
    cached = encode_set(random_model, images, CAPTIONS, tmp_path)
    assert counted == [3, 3]
    assert torch.equal(cached.latents, encode_set(random_model, images, CAPTIONS).latents)


def test_names_and_dates_are_no_part_of_the_cache_key(random_model: StableDiffusion, counted: list[int], tmp_path: Path) -> None:
    """Namesakes of two formats have latents of their own, an edit that keeps name and date is seen, another place is not."""
    folder, cache = tmp_path / "set", tmp_path / "cache"
    folder.mkdir()
    for name, seed in (("a.png", 1), ("a.bmp", 2)):
        Image.fromarray(pictures(1, seed)[0].permute(1, 2, 0).numpy()).save(folder / name)
    (folder / "a.txt").write_text("a fox")

    def encoded(where: Path) -> torch.Tensor:
        images, captions, _ = load_folder(where, size=16, default_caption=None)
        return encode_set(random_model, images, captions, cache).latents

    first = encoded(folder)
    assert not torch.equal(first[0], first[1])
    folder.rename(tmp_path / "moved")
    assert torch.equal(encoded(tmp_path / "moved"), first)
    assert counted == [2]
    edited, date = tmp_path / "moved" / "a.bmp", (tmp_path / "moved" / "a.bmp").stat()
    Image.fromarray(pictures(1, 3)[0].permute(1, 2, 0).numpy()).save(edited)
    os.utime(edited, ns=(date.st_atime_ns, date.st_mtime_ns))
    assert edited.stat().st_size == date.st_size
    again = encoded(tmp_path / "moved")
    assert counted == [2, 2]
    assert [torch.equal(a, b) for a, b in zip(first, again, strict=True)] == [False, True]


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\0" * len(b)], ids=["empty", "cut", "zeros"]
)
def test_a_damaged_cache_file_is_computed_again(
    random_model: StableDiffusion, counted: list[int], tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    first = encode_set(random_model, pictures(), CAPTIONS, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    assert torch.equal(encode_set(random_model, pictures(), CAPTIONS, tmp_path).latents, first.latents)
    assert torch.equal(encode_set(random_model, pictures(), CAPTIONS, tmp_path).latents, first.latents)
    assert counted == [3, 3]


def test_the_denoiser_is_no_part_of_the_cache_key(random_model: StableDiffusion, counted: list[int], tmp_path: Path) -> None:
    encode_set(random_model, pictures(), CAPTIONS, tmp_path)
    with torch.no_grad():
        next(random_model.denoiser.parameters()).add_(1)
    encode_set(random_model, pictures(), CAPTIONS, tmp_path)
    assert counted == [3]


def test_a_cache_that_is_a_file_is_an_error(random_model: StableDiffusion, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(GiftError, match="can't write"):
        encode_set(random_model, pictures(), CAPTIONS, tmp_path / "cache")
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.parametrize(("n", "captions"), [(0, []), (2, ["one"]), (1, ["one", "two"])])
def test_pictures_and_captions_must_match(random_model: StableDiffusion, n: int, captions: list[str]) -> None:
    with pytest.raises(GiftError, match=f"{n} pictures with {len(captions)} captions"):
        encode_set(random_model, pictures(n), captions)


def test_latents_that_are_not_finite_are_refused(random_model: StableDiffusion) -> None:
    with torch.no_grad():
        next(random_model.pipeline.vae.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="fp32"):
        encode_set(random_model, pictures(), CAPTIONS)


def test_a_fingerprint_tells_weights_apart() -> None:
    layer = torch.nn.Linear(2, 2)
    before = fingerprint(layer)
    assert fingerprint(layer) == before
    with torch.no_grad():
        layer.bias.add_(1e-6)
    assert fingerprint(layer) != before


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2, 3, 4, 5, 6])], ids=["plain", "weighted"])
def test_a_batch_follows_from_its_generator(concept_set: LatentSet, weights: torch.Tensor | None) -> None:
    some = replace(concept_set, weights=weights)
    draws = [some.batch(16, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1]["states"], draws[1][1]["states"])
    assert not torch.equal(draws[0][0], draws[2][0])


def test_a_batch_may_be_larger_than_the_set(concept_set: LatentSet) -> None:
    latents, cond = concept_set.batch(50, torch.Generator().manual_seed(0))
    assert len(latents) == len(cond["states"]) == 50


@pytest.mark.parametrize(("balance", "share"), [(None, 0.5), ([1, 1], 0.5), ([3, 1], 0.75), ([0.1, 0.9], 0.1)])
def test_joined_sets_have_their_share_of_a_batch_however_large_they_are(
    random_model: StableDiffusion, balance: list[float] | None, share: float
) -> None:
    small = encode_set(random_model, pictures(2, 1), ["a fox"] * 2)
    large = encode_set(random_model, pictures(30, 2), ["the sea", "a cat"] * 15)
    joined = join_sets([small, large], balance)
    assert len(joined) == 32
    assert joined.prompts == ["a fox", "the sea", "a cat"]
    assert joined.weights is not None
    n = 20_000
    picked = torch.multinomial(joined.weights, n, replacement=True, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(picked, minlength=32).float() / n
    assert float(counts[:2].sum()) == pytest.approx(share, abs=0.02)
    torch.testing.assert_close(counts[2:], torch.full((30,), (1 - share) / 30), atol=0.01, rtol=0)
    drawn = joined.draw_prompts(n, torch.Generator().manual_seed(0)).bincount(minlength=3) / n
    assert drawn.tolist() == pytest.approx([share, (1 - share) / 2, (1 - share) / 2], abs=0.02)
    for whole, part, start in ((joined, small, 0), (joined, large, 2)):
        for i in range(len(part)):
            one, other = whole.at(torch.tensor([start + i])), part.at(torch.tensor([i]))
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1]["states"], other[1]["states"])


def test_a_joined_set_knows_its_concepts(random_model: StableDiffusion) -> None:
    small = encode_set(random_model, pictures(2, 1), ["a fox"] * 2)
    large = encode_set(random_model, pictures(6, 2), ["the sea", "a cat"] * 3)
    assert small.by_concept() == [(1.0, small)]
    joined = join_sets([small, large], [3.0, 1.0])
    (share, first), (other, second) = joined.by_concept()
    assert (share, other) == pytest.approx((0.75, 0.25))
    for whole, part in ((small, first), (large, second)):
        assert whole.prompts == part.prompts
        assert torch.equal(whole.latents, part.latents)
        assert torch.equal(whole.which, part.which)
        assert torch.equal(whole.cond["states"], part.cond["states"])
    some = joined.some(4, torch.Generator().manual_seed(0))
    assert sum(len(part) for _, part in some.by_concept()) == 4


@pytest.mark.parametrize(
    ("count", "balance"), [(0, None), (2, [1.0]), (2, [1.0, 0.0]), (2, [1.0, -1.0]), (2, [1.0, math.nan]), (1, [1.0, 2.0])]
)
def test_shares_that_make_no_sense_are_an_error(concept_set: LatentSet, count: int, balance: list[float] | None) -> None:
    with pytest.raises(GiftError, match="one positive share"):
        join_sets([concept_set] * count, balance)


def test_a_drawn_set_is_what_the_sampler_gives_in_any_batch(random_model: StableDiffusion) -> None:
    asks = [Ask(prompt, seed) for seed, prompt in enumerate(["a fox", "the sea", "a fox", "a cat", "the sea"])]
    whole = draw_set(random_model, asks, steps=2)
    parts = draw_set(random_model, asks, steps=2, batch=2)
    latents, _ = random_model.sample_latents([a.prompt for a in asks], [a.seed for a in asks], steps=2, guidance=2.0)
    assert torch.equal(whole.latents, latents)
    torch.testing.assert_close(whole.latents, parts.latents, atol=1e-4, rtol=1e-4)
    assert whole.prompts == ["a fox", "the sea", "a cat"]
    assert whole.which.tolist() == [0, 1, 0, 2, 1]


def test_a_model_that_draws_nan_is_an_error(random_model: StableDiffusion) -> None:
    with torch.no_grad():
        next(random_model.denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        draw_set(random_model, [Ask("a fox", 0)], steps=2)


def test_fresh_and_cached_latents_have_one_memory_layout(random_model: StableDiffusion, tmp_path: Path) -> None:
    """Another layout takes another convolution kernel, and a resumed run would not end bit-identical."""
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    fresh = encode_set(random_model, images, ["a", "b", "c"], tmp_path)
    cached = encode_set(random_model, images, ["a", "b", "c"], tmp_path)
    assert fresh.latents.stride() == cached.latents.stride()
    assert fresh.latents.is_contiguous()


def test_prompts_may_be_encoded_anew_each_distinct_one_once(random_model: StableDiffusion) -> None:
    made = encode_set(random_model, pictures(5), ["a fox", "the sea", "a fox", "a cat", "the sea"])
    pick, asked = torch.tensor([4, 0, 2, 0, 1]), []

    def embed(prompts: Sequence[str]) -> Cond:
        asked.append(list(prompts))
        return random_model.embed(prompts)

    latents, cond = made.at(pick, embed)
    assert asked == [["a fox", "the sea"]]
    assert torch.equal(latents, made.at(pick)[0])
    torch.testing.assert_close(cond["states"], made.at(pick)[1]["states"])


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_some_of_the_pictures(random_model: StableDiffusion, n: int) -> None:
    made = encode_set(random_model, pictures(5), ["a", "b", "a", "c", "b"])
    made = replace(made, weights=torch.arange(5.0))
    few = made.some(n, torch.Generator().manual_seed(1))
    assert len(few) == min(n, 5)
    found = [int((made.latents == x).flatten(1).all(1).nonzero()) for x in few.latents]
    assert len({*found}) == len(found)
    assert few.which.tolist() == made.which[found].tolist()
    assert few.weights is not None
    assert few.weights.tolist() == [float(i) for i in found]
    again = made.some(n, torch.Generator().manual_seed(1))
    assert torch.equal(again.latents, few.latents)


def test_a_reworded_set_has_other_prompts_and_the_same_pictures(random_model: StableDiffusion) -> None:
    made = encode_set(random_model, pictures(), ["a fox", "the sea", "a fox"], mentions=["a fox", "fox", "a fox"])
    assert made.mentions == ["a fox", "fox"]
    assert made.reworded(random_model, lambda mention: mention) is made
    other = made.reworded(random_model, lambda mention: f"sks {mention}")
    assert other.prompts == ["sks a fox", "a picture of sks fox"]
    assert torch.equal(other.which, made.which)
    assert torch.equal(other.latents, made.latents)
    torch.testing.assert_close(other.cond["states"], random_model.encode_prompts(other.prompts)["states"])
    assert join_sets([made, encode_set(random_model, pictures(), CAPTIONS)]).mentions == ["a fox", "fox", "", ""]


def blacked_out(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """Has a model draw every `share`-th picture black, as a safety filter does."""

    def sample(
        self: StableDiffusion, prompts: Sequence[str], seeds: Sequence[int], **_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(len(prompts), *self.latent_shape, generator=generator)
        latents[::share] = -1 + 0.1 * latents[::share]
        return latents, torch.tensor(0)

    def decode(self: StableDiffusion, latents: torch.Tensor) -> torch.Tensor:
        flat = latents.std(dim=(1, 2, 3)) < 0.5
        return torch.randint(256, (len(latents), 3, 16, 16), dtype=torch.uint8) * ~flat.view(-1, 1, 1, 1)

    monkeypatch.setattr(StableDiffusion, "sample_latents", sample)
    monkeypatch.setattr(StableDiffusion, "decode", decode)


def test_black_pictures_that_the_model_draws_are_warned_of_wherever_it_draws(
    random_model: StableDiffusion, concept_set: LatentSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    blacked_out(random_model, monkeypatch, 3)
    asks = [Ask("a fox", seed) for seed in range(6)]
    bench = Workbench.of(random_model, "a fox")
    dreambooth = make_attack("dreambooth", {"prior": True, "class_pictures": 6})
    for draw in (
        lambda: draw_set(random_model, asks),
        lambda: bench.concept_set(6),
        lambda: bench.safe_set(6),
        lambda: dreambooth.prior_term(random_model, concept_set, 0),
    ):
        with pytest.warns(UserWarning, match="2 of 6 pictures that the model drew are one single colour"):
            draw()
    blacked_out(random_model, monkeypatch, 99)
    with pytest.warns(UserWarning, match="1 of 6 pictures"):
        draw_set(random_model, asks)


def test_drawings_are_not_taken_for_one_colour_and_white_is(tiny: Path) -> None:
    model, art = load(tiny), load_art()
    white = model.encode_images(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8))
    drawings = model.encode_images(torch.cat([art.atlas(style)[:4] for style in art.trained_styles]))
    assert constant_latents(model, torch.cat([drawings, white])) == [len(drawings)]
