"""Shared fixtures: a random-weight Stable Diffusion of the true classes, small enough to train in a second."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gc
import signal
import sqlite3
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from sqlalchemy import event
from sqlalchemy.engine import Engine
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gift.data.art import load_art
from gift.data.latents import LatentSet, encode_set
from gift.metrics.recogniser import Recogniser, RecogniserConfig
from gift.models import DenoisingModel
from gift.models.loading import TINY
from gift.models.sd import StableDiffusion
from gift.training.progress import Silent


def pytest_collection_finish() -> None:
    """What is imported by now stays: a search for garbage went through it, a twelfth of the immunizers' contract's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def files_that_no_power_failure_will_meet() -> Iterator[None]:
    """Nothing waits until the disk has what was written: half of the time of the searches' tests."""

    def hurry(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
    event.remove(Engine, "connect", hurry)


BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def random_pipeline(prediction_type: str = "epsilon", seed: int = 0) -> Any:
    """A StableDiffusionPipeline of the true classes with random weights: 16 px pictures, 8x8 latents."""
    torch.manual_seed(seed)
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase), BOS, EOS]
    tokenizer = CLIPTokenizer(
        vocab={t: i for i, t in enumerate(letters)},
        merges=[],
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=EOS,
        model_max_length=16,
    )
    text = CLIPTextConfig(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture
def random_model() -> StableDiffusion:
    """A random-weight noise-prediction model."""
    return StableDiffusion(random_pipeline(), "random")


@pytest.fixture
def make_model() -> Callable[..., StableDiffusion]:
    """Makes random-weight models by prediction type."""
    return lambda **options: StableDiffusion(random_pipeline(**options), "random")


def picture_set(model: DenoisingModel, n: int, word: str, seed: int = 0) -> LatentSet:
    """n random pictures with two captions."""
    images = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return encode_set(model, images, [f"a {word}" if i % 2 else word for i in range(n)])


@pytest.fixture
def concept_set(random_model: StableDiffusion) -> LatentSet:
    """Six random 'concept' pictures."""
    return picture_set(random_model, 6, "fox", 1)


@pytest.fixture
def safe_set(random_model: StableDiffusion) -> LatentSet:
    """Six random 'safe' pictures."""
    return picture_set(random_model, 6, "sea", 2)


State = dict[str, torch.Tensor]


def state_of(model: DenoisingModel) -> State:
    """A copy of the denoiser's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.denoiser.state_dict().items()}


def same_state(a: State, b: State) -> bool:
    """Whether two denoisers' weights have the same names and the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def moved(before: State, after: State) -> set[str]:
    """The names whose values differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}


@torch.no_grad()
def fixed_loss(model: DenoisingModel, data: LatentSet) -> float:
    """The training loss on 48 fixed draws of timestep and noise."""
    latents, cond = data.at(torch.arange(48) % len(data))
    return model.loss(latents, cond, torch.Generator().manual_seed(5)).mean().item()


class StopAt(Silent):
    """A reporter that presses Ctrl-C once `at` steps are done."""

    def __init__(self, at: int, sign: signal.Signals = signal.SIGINT) -> None:
        self.at, self.sign = at, sign

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Presses it."""
        if done == self.at:
            signal.raise_signal(self.sign)


class Clock:
    """A clock that stands still but for what is said to last."""

    now = 0.0

    def __call__(self) -> float:
        """Reads it."""
        return self.now

    def lasting(self, call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """The same, which takes so long."""

        def slow(*given: Any, **named: Any) -> Any:
            self.now += seconds
            return call(*given, **named)

        return slow


class Heard(Silent):
    """Keeps what is said, and counts the steps."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps = 0

    def say(self, text: str) -> None:
        """Keeps it."""
        self.lines.append(text)

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Counts it."""
        self.steps += 1


@pytest.fixture
def tiny() -> Path:
    """The bundled model's folder; without it the test is skipped."""
    if not (TINY / "model_index.json").exists():
        pytest.skip(f"the bundled model is missing at {TINY}")
    return TINY


def random_recogniser() -> Recogniser:
    """A recogniser with random weights and the bundled names."""
    torch.manual_seed(0)
    art = load_art()
    config = RecogniserConfig(tuple(art.names), art.trained_styles, ("a",), widths=(4, 8), embedding=4)
    return Recogniser(config).eval().requires_grad_(False)


def noise_pictures(folder: Path, count: int) -> None:
    """Pictures of grey noise, each stronger than the one before, in a new folder."""
    folder.mkdir()
    for i in range(count):
        Image.effect_noise((20, 20), 10 + 40 * i).convert("RGB").save(folder / f"{i}.png")


def art_pipeline(seed: int = 0) -> Any:
    """A random-weight pipeline that has the styles' names in its vocabulary."""
    pipeline = random_pipeline(seed=seed)
    pipeline.tokenizer.add_tokens([f"{style}</w>" for style in load_art().trained_styles])
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
    return pipeline


@pytest.fixture
def art_model(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a random-weight model that has the styles' names in its vocabulary; the recogniser is random, too."""
    folder = tmp_path_factory.mktemp("art-model")
    art_pipeline().save_pretrained(folder)
    monkeypatch.setattr("gift.bench.workbench.load_recogniser", random_recogniser)
    return str(folder)
