"""Training sets as the denoiser sees them: latents and prompt embeddings, encoded once and cached by content."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from gift.data.images import CONSTANT_BELOW, content_key, contrast
from gift.data.mention import Word, reworded
from gift.data.prompts import Ask
from gift.errors import GiftError, NonFiniteError
from gift.files import write_bytes
from gift.models.base import Cond, DenoisingModel, Embed, take
from gift.room import in_parts

FLAT_BELOW = 0.6
"""Latents whose deviation over their places is less than this in every channel may be a picture of one colour (choice: the bundled
autoencoder gives white 0.17, and no drawing that it was tried on less than 0.78)."""


@dataclass(frozen=True)
class LatentSet:
    """N pictures as latents, with their prompts' embeddings.

    Attributes:
        latents: scaled latents (N, C, h, w).
        cond: embeddings of the M distinct prompts.
        which: for each picture the row of its prompt, (N,).
        prompts: the M distinct prompts.
        weights: how likely each picture is drawn, (N,); None for all alike.
        mentions: the words by which each distinct prompt names the concept; None where that is not known.
        concept_of: for each picture the number of its concept, (N,); None where there is but one.
        origin: a hash of what the latents were made of: pictures, or the draws' seeds; '' where that is not known.
    """

    latents: torch.Tensor
    cond: Cond
    which: torch.Tensor
    prompts: list[str]
    weights: torch.Tensor | None = None
    mentions: list[str] | None = None
    concept_of: torch.Tensor | None = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def identity(self) -> str:
        """16 hexadecimal digits for pictures and prompts, without the latents' own bits, which differ between machines."""
        parts = [self.origin, self.prompts, self.which.tolist(), None if self.weights is None else self.weights.tolist()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def batch(self, size: int, generator: torch.Generator, embed: Embed | None = None) -> tuple[torch.Tensor, Cond]:
        """`size` pictures drawn with replacement: latents and conditioning, which `embed` encodes anew."""
        return self.at(self.draw(size, generator), embed)

    def draw(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """The indices of `size` pictures, drawn with replacement."""
        if self.weights is not None:
            return torch.multinomial(self.weights, size, replacement=True, generator=generator)
        return torch.randint(len(self), (size,), generator=generator)

    def draw_prompts(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """The rows of `size` distinct prompts, drawn with replacement: all alike, or as likely as their pictures have `weights`."""
        if self.weights is not None:
            return self.which[self.draw(size, generator).to(self.which.device)]
        return torch.randint(len(self.prompts), (size,), generator=generator)

    def at(self, pick: torch.Tensor, embed: Embed | None = None) -> tuple[torch.Tensor, Cond]:
        """The pictures of the given indices: latents and conditioning.

        Args:
            pick: indices.
            embed: encodes the prompts anew, each distinct one once; None for the embeddings that are kept.
        """
        pick = pick.to(self.latents.device)
        if embed is None:
            return self.latents[pick], take(self.cond, self.which[pick])
        rows, back = self.which[pick].unique(return_inverse=True)
        return self.latents[pick], take(embed([self.prompts[row] for row in rows.tolist()]), back)

    def some(self, n: int, generator: torch.Generator) -> LatentSet:
        """n of the pictures, drawn without replacement; all of them if there are not more."""
        if n >= len(self):
            return self
        pick = torch.randperm(len(self), generator=generator)[:n].sort().values.to(self.latents.device)
        weights = None if self.weights is None else self.weights[pick.to(self.weights.device)]
        owners = None if self.concept_of is None else self.concept_of[pick.to(self.concept_of.device)]
        return replace(self, latents=self.latents[pick], which=self.which[pick], weights=weights, concept_of=owners)

    def only(self, pick: torch.Tensor) -> LatentSet:
        """The pictures of the given indices as a set of their own, all drawn alike, with no other prompts than theirs."""
        pick = pick.to(self.latents.device)
        rows, which = self.which[pick].unique(return_inverse=True)
        prompts = [self.prompts[row] for row in rows.tolist()]
        mentions = None if self.mentions is None else [self.mentions[row] for row in rows.tolist()]
        return LatentSet(self.latents[pick], take(self.cond, rows), which, prompts, mentions=mentions)

    def by_concept(self) -> list[tuple[float, LatentSet]]:
        """Each concept's share of a batch, and its pictures as a set of their own."""
        if self.concept_of is None or self.weights is None:
            return [(1.0, self)]
        parts = [(self.concept_of == number).nonzero()[:, 0] for number in self.concept_of.unique()]
        return [(float(self.weights[part].sum() / self.weights.sum()), self.only(part)) for part in parts]

    def reworded(self, model: DenoisingModel, word: Word) -> LatentSet:
        """The set with the attacker's word for the concept in its prompts, encoded by `model`; itself where that is the same."""
        mentions = self.mentions or [""] * len(self.prompts)
        prompts = [reworded(prompt, mention, word) for prompt, mention in zip(self.prompts, mentions, strict=True)]
        return self if prompts == self.prompts else replace(self, prompts=prompts, cond=model.encode_prompts(prompts))


def _set(
    model: DenoisingModel, latents: torch.Tensor, prompts: Sequence[str], mentions: Sequence[str] | None = None, origin: str = ""
) -> LatentSet:
    if not torch.isfinite(latents).all():
        raise NonFiniteError("the latents hold NaN or infinite values; use the VAE in fp32 and look at the pictures")
    latents = latents.contiguous()  # a cached set has no other layout, and another layout rounds differently
    distinct = list(dict.fromkeys(prompts))
    row = {prompt: i for i, prompt in enumerate(distinct)}
    which = torch.tensor([row[prompt] for prompt in prompts], device=latents.device)
    named = dict(zip(prompts, mentions, strict=True)) if mentions is not None else None
    said = [named[prompt] for prompt in distinct] if named else None
    return LatentSet(latents, model.encode_prompts(distinct), which, distinct, mentions=said, origin=origin)


def shares_of(count: int, balance: Sequence[float] | None = None) -> list[float]:
    """The shares of a batch that concepts have, which add up to 1; equal ones without a balance.

    Raises:
        GiftError: the balance is not one positive number a concept, or there is no concept.
    """
    shares = list(balance) if balance is not None else [1.0] * count
    if not count or len(shares) != count or not all(0 < share < math.inf for share in shares):
        raise GiftError(f"balance {shares} for {count} concepts; give one positive share for each")
    return [share / sum(shares) for share in shares]


def join_sets(sets: Sequence[LatentSet], balance: Sequence[float] | None = None) -> LatentSet:
    """One set of several concepts.

    Args:
        sets: the concepts' sets, of one model.
        balance: each concept's share of a batch; equal shares by default, however many pictures each has.

    Raises:
        GiftError: the shares are not one positive number a set.
    """
    shares = shares_of(len(sets), balance)
    starts = [sum(len(s.prompts) for s in sets[:i]) for i in range(len(sets))]
    return LatentSet(
        latents=torch.cat([s.latents for s in sets]),
        cond={name: torch.cat([s.cond[name] for s in sets]) for name in sets[0].cond},
        which=torch.cat([s.which + start for s, start in zip(sets, starts, strict=True)]),
        prompts=[prompt for s in sets for prompt in s.prompts],
        mentions=[mention for s in sets for mention in s.mentions or [""] * len(s.prompts)],
        weights=torch.cat([torch.full((len(s),), share / len(s)) for s, share in zip(sets, shares, strict=True)]),
        concept_of=torch.cat([torch.full((len(s),), number) for number, s in enumerate(sets)]),
        origin=" ".join(s.origin for s in sets),
    )


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights: the part of a cache key that says which network encoded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def encode_set(
    model: DenoisingModel,
    images: torch.Tensor,
    captions: Sequence[str],
    cache: Path | None = None,
    mentions: Sequence[str] | None = None,
) -> LatentSet:
    """Encodes pictures and captions once.

    Args:
        model: the model whose autoencoder and text encoder are used.
        images: uint8 (N, 3, H, W) at the model's picture size.
        captions: N captions.
        cache: a folder; latents are kept there by the pictures' content and the autoencoder's weights and configuration.
        mentions: the words in each caption that name the concept, for attackers with a word of their own.

    Raises:
        GiftError: there are no pictures, or their number is not that of the captions.
    """
    if len(images) == 0 or len(images) != len(captions):
        raise GiftError(
            f"{len(images)} pictures with {len(captions)} captions; give each picture one caption, and at least one picture"
        )
    origin = content_key(images)
    if cache is None:
        return _set(model, model.encode_images(images), captions, mentions, origin)
    vae = model.pipeline.vae
    about = json.dumps({name: value for name, value in vae.config.items() if name[:1] != "_"}, sort_keys=True, default=str)
    made_by = (fingerprint(vae), type(vae).__name__, about, str(model.latent_scale), str(model.image_size))
    key = content_key(images, *made_by)
    file = cache / f"{key}.safetensors"
    try:
        latents = load_file(file)["latents"].to(model.device)
    except (OSError, SafetensorError, KeyError):
        latents = model.encode_images(images)
        write_bytes(file, save({"latents": latents.cpu().contiguous()}))
    return _set(model, latents, captions, mentions, origin)


def draw_set(
    model: DenoisingModel, asks: Sequence[Ask], *, steps: int | None = None, guidance: float | None = None, batch: int = 48
) -> LatentSet:
    """The model's own pictures as a training set (data-free): sampled latents, kept as they are, without a trip through pixels.

    Args:
        model: the model that draws; unchanged.
        asks: prompts with their seeds.
        steps: sampler steps; the model's own by default.
        guidance: classifier-free guidance scale; the model's own by default.
        batch: pictures a forward.

    Where memory gives out, they are drawn one at a time. Pictures of one single colour are warned of.

    Raises:
        NonFiniteError: the model draws NaN.
        NotEnoughMemory: there is no room for a single picture.
    """
    prompts, seeds, how = [a.prompt for a in asks], [a.seed for a in asks], model.sampling.but(steps, guidance)

    def draw(part: slice) -> torch.Tensor:
        return model.sample_latents(prompts[part], seeds[part], steps=how.steps, guidance=how.guidance)[0]

    latents = torch.cat(in_parts(len(asks), batch, draw, "to draw pictures"))
    origin = json.dumps([seeds, how.steps, how.guidance])
    drawn = _set(model, latents, prompts, origin=hashlib.sha256(origin.encode()).hexdigest())
    flat = [prompts[i] for i in constant_latents(model, latents)]
    if flat:
        warnings.warn(
            f"{len(flat)} of {len(asks)} pictures that the model drew are one single colour ('{flat[0]}'): blank, or blacked out "
            "by a safety filter; look at what it draws, or give pictures of your own",
            stacklevel=2,
        )
    return drawn


def constant_latents(model: DenoisingModel, latents: torch.Tensor) -> list[int]:
    """Which latents (N, C, h, w) are pictures of one single colour. Only those that may be are decoded."""
    suspects = (contrast(latents) < FLAT_BELOW).nonzero().flatten()
    if not len(suspects):
        return []
    pictures = torch.cat(in_parts(len(suspects), 32, lambda part: model.decode(latents[suspects[part]]), "to look at pictures"))
    return suspects[(contrast(pictures) < CONSTANT_BELOW).to(suspects.device)].tolist()
