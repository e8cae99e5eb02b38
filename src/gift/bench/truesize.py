"""`python -m gift.bench.truesize`: time and memory of a GIFT step beside plain fine-tuning, on a UNet of Stable Diffusion's size.

The UNet has the published configuration and random weights; latents and prompt embeddings are random, as if cached. Each contender
takes its steps in a fresh process, in place. Nothing is learned here: a step costs what it costs whatever the weights are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gift.attacks import Full
from gift.attacks.base import FineTuning
from gift.bench.provenance import machine
from gift.bench.speed import seconds
from gift.data.latents import LatentSet
from gift.immunizers import Attacker, Gift, Immunizer, Task
from gift.models import DenoisingModel
from gift.models.loading import FAMILIES
from gift.training.loop import step_generator
from gift.training.measure import Meter
from gift.training.precision import Saving, make_accelerator

TOKENS = 77
PIPELINES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline", "small": "StableDiffusionPipeline"}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "small": {"sample_size": 8, "cross_attention_dim": 32, "attention_head_dim": 8, "block_out_channels": (32, 64, 64, 64)},
}
"""The published configurations where they differ from diffusers' defaults; 'small' tries the command out."""


def contenders(steps: int, batch: int) -> dict[str, Immunizer | None]:
    """What is measured, by name; None is plain fine-tuning with AdamW.

    Every defence takes one safe step a round toward theta_0's outputs, projects on the safe optimiser's mean and turns the
    immunizing gradient into a step by Adafactor: so it holds the weights, one gradient and one AdamW, as plain fine-tuning does.
    """
    shared: dict[str, Any] = {
        "steps": steps,
        "safe_steps": 1,
        "spare": 0.0,
        "safe_target": "reference",
        "safe_factor": 1,
        "empty_share": 0.0,  # no text encoder runs here
        "varied_share": 0.0,  # nor an autoencoder
        "varied_concept": 0.0,
        "batch_size": batch,
        "project_on": "momentum",
        "immunize_optimiser": "adafactor",
    }
    attacker = Attacker(kinds=("lora",), steps=2, rank=8, batch_size=batch)
    return {
        "plain": None,
        "gift": Gift(**shared),
        "gift, simulated LoRA": Gift(attacker=attacker, **shared),
        "gift by LoRA": Gift(attacker=attacker, adapter_rank=16, **shared),
    }


def random_model(size: str, device: str) -> DenoisingModel:
    """A pipeline whose UNet has the size; its other parts are as small as they can be, and never run."""
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**UNETS[size])
        vae = AutoencoderKL(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            latent_channels=4,
        )
        ids = {"vocab_size": 4, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        text = CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, **ids)
        encoder = CLIPTextModel(text)
    words = {word: i for i, word in enumerate(("<|startoftext|>", "<|endoftext|>", "a", "a</w>"))}
    tokenizer = CLIPTokenizer(vocab=words, merges=[], model_max_length=TOKENS)
    family = FAMILIES[PIPELINES[size]]
    more: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if size == "sdxl":
        more = {"text_encoder_2": CLIPTextModelWithProjection(text).to(device), "tokenizer_2": tokenizer}
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    parts = {"vae": vae, "text_encoder": encoder, "tokenizer": tokenizer, "unet": unet, "scheduler": scheduler}
    return family(family.pipeline_class()(**parts, **more), f"random {size}")


def random_set(model: DenoisingModel, rows: int = 4) -> LatentSet:
    """Random latents and prompt embeddings of the model's shapes."""
    generator = torch.Generator().manual_seed(0)
    config: Any = model.denoiser.config
    cond = {"states": torch.randn(rows, TOKENS, config.cross_attention_dim, generator=generator)}
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        cond["pooled"] = torch.randn(rows, width, generator=generator)
    latents = torch.randn(rows, *model.latent_shape, generator=generator)
    on = {name: tensor.to(model.device) for name, tensor in cond.items()}
    return LatentSet(latents.to(model.device), on, torch.arange(rows, device=model.device), ["a"] * rows)


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One contender's seconds a step and peak memory, in this process."""
    model = random_model(given.size, given.device)
    data = random_set(model)
    accelerator = make_accelerator(model)
    Saving(precision=given.precision, gradient_checkpointing=not given.keep_activations).apply(model, accelerator)
    model.denoiser.train()
    how = contenders(given.steps + 1, given.batch)[name]
    stepper: Any
    began = time.perf_counter()
    with Meter() as meter:
        if how is None:
            stepper = FineTuning(Full(batch_size=given.batch), model, data, accelerator)
        else:
            stepper = how.begin(Task(model, data, data, accelerator, 0, how.adapter_rank))

        ahead = (time.perf_counter() - began) / (given.steps + 1)  # theta_0's outputs, which are computed before the first step

        def step(i: int) -> None:
            stepper.step(i, step_generator(0, i))
            if model.device.type == "cuda":
                torch.cuda.synchronize()

        step(0)  # the optimisers' state is made here
        times = [seconds(step, i) for i in range(1, given.steps + 1)]
    about = {"weights": sum(p.numel() for p in model.denoiser.parameters()), "machine": machine()}
    return {"seconds": ahead + statistics.median(times), "peak_mb": meter.peak_mb, **about}


def apart(name: str, command: list[str]) -> dict[str, Any]:
    """`measure` in a fresh process.

    Raises:
        SystemExit: it failed, for example for want of memory.
    """
    done = subprocess.run([*command, "--only", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"'{name}' ended with code {done.returncode}; is there enough memory? see --size, --batch and --device")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main(run: Callable[[str, list[str]], dict[str, Any]] = apart) -> None:
    """Prints seconds, memory and ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m gift.bench.truesize", description="A GIFT step beside a plain one at true size."
    )
    parser.add_argument("--size", choices=sorted(UNETS), default="sd15", help="whose UNet ('small' only tries the command out)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps after a first one")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--keep-activations", action="store_true", help="no gradient checkpointing")
    parser.add_argument("--only", choices=list(contenders(1, 1)), help="print one contender's figures as JSON")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given)))
        return
    command = [sys.executable, "-m", "gift.bench.truesize", *sys.argv[1:]]
    plain: dict[str, Any] = {}
    for name in contenders(1, 1):
        found = run(name, command)
        if not plain:
            plain, about = found, found["machine"]
            where = about["gpu"] or f"{about['threads']} threads, {about['memory_gib']} GiB"
            print(
                f"{given.size}: {found['weights'] / 1e6:.0f} M weights, batch {given.batch}, {given.precision}; {where}", flush=True
            )
        print(
            f"{name:<22} {found['seconds']:8.2f} s/step ({found['seconds'] / plain['seconds']:.2f} x plain)"
            f" {found['peak_mb'] / 1024:7.2f} GiB ({found['peak_mb'] / plain['peak_mb']:.2f} x plain)",
            flush=True,
        )


if __name__ == "__main__":
    main()
