"""Patches are laid out as FLUX lays them out."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline

from gift.models.patches import packed, unpacked


def test_patches_are_those_of_flux_and_go_back() -> None:
    latents = torch.arange(2 * 3 * 6 * 6).float().view(2, 3, 6, 6)
    patches = packed(latents)
    assert patches.shape == (2, 9, 12)
    assert torch.equal(patches, FluxPipeline._pack_latents(latents, 2, 3, 6, 6))
    assert torch.equal(patches[0, 0].view(3, 2, 2), latents[0, :, :2, :2])
    assert torch.equal(unpacked(patches), latents)
