"""Errors made up by hand, to compare recorded ones with: what a person expects of a drifting video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def spoiled(latents: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """`latents`, `[B, C, T, H, W]`, with white noise, a shift of each channel, and blur or sharpening.

    Each sample draws the amount of each from U(0, 1) times `strength`: noise and shift as standard deviations, blur as
    the share of a 3x3 mean that is mixed in, or taken away.
    """
    count, channels = latents.shape[:2]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance).to(latents)

    def amount() -> Tensor:
        return strength * torch.rand(count, 1, 1, 1, 1, generator=chance).to(latents)

    flat = latents.transpose(1, 2).flatten(0, 1)
    mean = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    smooth = mean.reshape(latents.transpose(1, 2).shape).transpose(1, 2)
    blur = amount() * torch.where(torch.rand(count, 1, 1, 1, 1, generator=chance).to(latents) < 0.5, 1.0, -1.0)
    shift = amount() * normal(count, channels, 1, 1, 1)
    made: Tensor = latents + blur * (smooth - latents) + shift + amount() * normal(*latents.shape)
    return made
