"""What a clip goes on from: motion frames at its start, a reference where one is asked for, and what of it is given."""

from __future__ import annotations

import torch
from torch import Tensor


def condition(motion: Tensor, frames: int, *, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The condition's latents `[B, C, T, H, W]` and their mask `[B, 1, T, H, W]`, 1 where a frame is given.

    motion: `[B, C, k, H, W]`, the first k of T = `frames`. reference: what the others show, `[B, C, 1, H, W]` for all
    alike, or one for each of T; without it they are zero.
    """
    count, channels, given, height, width = motion.shape
    if given >= frames:
        raise ValueError(f"{given} motion frames leave nothing to make of a clip of {frames}")
    padding = (count, channels, frames - given, height, width)
    if reference is None:
        rest = motion.new_zeros(padding)
    else:
        rest = (reference if reference.shape[2] == 1 else reference[:, :, given:frames]).to(motion).expand(padding)
    mask = motion.new_zeros(count, 1, frames, height, width)
    mask[:, :, :given] = 1
    return torch.cat([motion, rest], 2), mask
