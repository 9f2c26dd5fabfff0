"""Video without end: each clip goes on from the last latents of the one before.

Latents are handed over as they are: decoding and encoding them again, clip by clip, drifts by itself. Every clip has a
seed of its own, since the same noise again and again leaves the same trace. Only the last clip is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from video_recycle.condition import condition
from video_recycle.flow import sample


class VideoModel(Protocol):
    """(x `[B, C, T, H, W]`, sigma `[B]`, condition's latents, mask, what else it is told) -> velocity as x."""

    def __call__(self, x: Tensor, sigma: Tensor, given: Tensor, mask: Tensor, prompt: object = None, /) -> Tensor: ...


@torch.no_grad()
def rollout(
    model: VideoModel,
    motion: Tensor,
    prompts: Iterable[object],
    *,
    frames: int,
    sigmas: Tensor,
    seed: int = 0,
    reference: Tensor | None = None,
) -> Iterator[Tensor]:
    """One clip's new latents `[B, C, T - k, H, W]` per prompt, for as long as `prompts` gives any.

    motion: `[B, C, k, H, W]`, where it starts and how many frames are handed over; reference: as in `condition`.
    """
    given = motion.shape[2]
    for clip, prompt in enumerate(prompts):
        latents, shown = condition(motion, frames, reference=reference)
        chance = torch.Generator().manual_seed(seed * 1_000_003 + clip)
        noise = torch.randn(latents.shape, generator=chance).to(latents)

        def velocity(x: Tensor, sigma: Tensor, told: object = prompt, y: Tensor = latents, m: Tensor = shown) -> Tensor:
            return model(x, sigma, y, m, told)

        made = sample(velocity, noise, sigmas.to(latents))
        motion = made[:, :, -given:]
        yield made[:, :, given:]
