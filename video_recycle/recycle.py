"""One step of error recycling (arXiv 2510.09212, Eq. 3-6): put recorded errors in, aim at clean data, record new ones.

    ε' = ε + E_noi      x0' = x0 + E_vid      y' = y + E_img      x' = (1-σ) x0' + σ ε'

The target is ε' - x0: the noise with its error, the *clean* latent. So following it from x' ends nearer to clean data
than the input was. After the forward pass dv = v̂ - target is recorded: E_vid = -σ·dv and E_noi = (1-σ)·dv are how far
one step along v̂ ends from one along the target, at data and at noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from video_recycle.bank import ErrorBank
from video_recycle.flow import like, noised


@dataclass(frozen=True, kw_only=True)
class Recycling:
    """How often each error is put in; the defaults are the reference implementation's. 0 switches one off."""

    noise: float = 0.9
    video: float = 0.9
    image: float = 0.9
    """In the paper's ablation this one does nearly all the work; its authors advise it alone for small models."""
    clean: float = 0.1
    """How often nothing is put in."""
    clean_update: float = 0.1
    """How often a clean step's error is recorded."""
    image_frames: int = 1
    """k: so many leading frames of the condition get as many frames of an error, from a place drawn once a step."""
    exact: bool = False
    """Aim at (x' - x0) / σ, which leads from x' to clean data exactly, in place of the published target."""
    exact_from: float = 0.1
    """The lowest σ the exact target divides by: near 0 it grows without bound."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the model is given and what it should answer; all `[B, C, T, H, W]` but `clean`, bool `[B]`."""

    x: Tensor
    condition: Tensor
    target: Tensor
    clean: Tensor


def inject(
    bank: ErrorBank,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    condition: Tensor,
    *,
    settings: Recycling,
    chance: torch.Generator,
) -> Inputs:
    """The step's inputs. Each sample draws by itself; from an empty cell nothing is put in.

    x0, noise: `[B, C, T, H, W]`; sigma: `[B]`; condition: the latents of the reference and motion frames, of the same
    shape as x0, without their mask, which stays as it is. chance: on the CPU.
    """
    count = len(x0)
    add_noise, add_video, add_image, clean = (
        torch.rand(count, generator=chance) < probability
        for probability in (settings.noise, settings.video, settings.image, settings.clean)
    )

    def where(wanted: Tensor, error: Tensor) -> Tensor:
        return error.to(x0) * like(wanted & ~clean, x0)

    dv, level = bank.draw(sigma)
    noise_error = where(add_noise, (1 - like(level, dv)) * dv)
    dv, level = bank.draw(sigma)
    video_error = where(add_video, -like(level, dv) * dv)
    dv, level = bank.draw_any(count)
    image_error = where(add_image, -like(level, dv) * dv)

    frames = min(settings.image_frames, x0.shape[2])
    first = int(torch.randint(x0.shape[2] - frames + 1, (), generator=chance))
    condition = condition.clone()
    condition[:, :, :frames] += image_error[:, :, first : first + frames]

    noise = noise + noise_error
    x = noised(x0 + video_error, noise, sigma)
    target = (x - x0) / like(sigma, x0).clamp_min(settings.exact_from) if settings.exact else noise - x0
    return Inputs(x=x, condition=condition, target=target, clean=clean)


@torch.no_grad()
def record(
    bank: ErrorBank,
    predicted: Tensor,
    inputs: Inputs,
    sigma: Tensor,
    *,
    settings: Recycling,
    chance: torch.Generator,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Keep what `predicted`, the same forward pass's v̂ `[B, C, T, H, W]`, got wrong. Returns how many were kept.

    gather: puts the tensors of all processes together, `[ranks·B, ...]`, in training's first steps.
    """
    wanted = ~inputs.clean | (torch.rand(len(sigma), generator=chance) < settings.clean_update)
    residuals = predicted.detach().float() - inputs.target.float()
    if gather is None:
        rows = wanted.nonzero().flatten()
        return bank.add(residuals[rows.to(residuals.device)], sigma[rows.to(sigma.device)])
    # Ranks may want different numbers of rows; the bank leaves out those whose key is none.
    keys = torch.where(wanted.to(sigma.device), sigma.float(), torch.nan)
    # Processes on GPUs can only gather what is on them.
    return bank.add(gather(residuals), gather(keys.to(residuals.device)))
