"""Flow matching as Wan and DiffSynth write it: σ = 1 is noise, σ = 0 is data, and a model predicts the velocity.

    x_σ = (1-σ) x0 + σ ε        v = dx/dσ = ε - x0

The paper of error recycling (arXiv 2510.09212) writes the same with t = 1-σ, and so its V is -v.
`sigma` has one value per sample, `[B]`; latents have any shape after that, for video `[B, C, T, H, W]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHIFT = 5.0
"""Of the schedule that Wan was trained with at 480p: most steps are spent where there is much noise."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""What a model predicts: (x [B, ...], sigma [B]) -> v [B, ...]."""


def shifted(u: Tensor, shift: float = SHIFT) -> Tensor:
    """σ = s·u / (1 + (s-1)·u) for u in 0..1, any shape. Both ends stay."""
    return shift * u / (1 + (shift - 1) * u)


def grid(steps: int, shift: float = SHIFT) -> Tensor:
    """The noise levels of sampling in so many steps, `[steps + 1]`, falling from 1 to 0.

    Made here and not by a scheduler: those of diffusers shift their last levels twice, and a bank indexed by them
    would not be the paper's.
    """
    return shifted(torch.linspace(1.0, 0.0, steps + 1), shift)


def like(sigma: Tensor, x: Tensor) -> Tensor:
    """`sigma`, `[B]`, with the axes it takes to be multiplied with `x`, `[B, ...]`."""
    return sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x)


def noised(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_σ."""
    level = like(sigma, x0)
    return (1 - level) * x0 + level * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """v, which is the same at every σ."""
    return noise - x0


def to_data(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Where one step along `v` from `x` at `sigma` ends at σ = 0."""
    return x - like(sigma, x) * v


def to_noise(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Where one step back along `v` ends at σ = 1."""
    return x + (1 - like(sigma, x)) * v


@torch.no_grad()
def sample(model: Velocity, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's method from `noise` down the levels `sigmas`, such as `grid(50)`."""
    x = noise
    for here, there in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        x = x + (there - here) * model(x, x.new_full((len(x),), here))
    return x
