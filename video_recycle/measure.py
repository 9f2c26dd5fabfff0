"""Drift against the world's truth, one number per clip for each way a long video goes wrong.

A frozen picture is consistent with itself for ever, so motion is measured beside the looks, and every table has a row
that copies the last given frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_recycle.world import ORBIT, Scenes, angle, background, off_orbit, render, scenes, with_disc

FEATURES = Path(__file__).parent / "weights" / "features.safetensors"

FOUND = 0.5
"""The disc counts as found where what stands out of the true background has at least this cosine with a disc there."""
ANGLES = 96


@dataclass(frozen=True)
class Drift:
    """Means over scenes and a clip's frames."""

    error: float
    """Root mean square error of the whole frame against the truth, pixel range 2: the main one."""
    look: float
    """The same against the nearest frame that the scene could show, wherever the disc is: a frozen picture has none."""
    background: float
    """Root mean square error, pixel range 2, where the disc never is."""
    colour: float
    """Distance of a frame's mean colour from the true one."""
    contrast: float
    """Standard deviation off the orbit over the true one: 1 is right."""
    sharpness: float
    """Mean gradient over the true one: 1 is right, less is blurred."""
    found: float
    """Share of frames that the disc is found in."""
    position: float
    """Pixels between the disc and the true one, where it is found."""
    motion: float
    """Mean change from frame to frame over the true one: 1 is right, 0 is frozen."""
    frechet: float
    """Fréchet distance of the frames' features from the true frames', see `Features`."""


NAMES = tuple(field.name for field in fields(Drift))


class Features(nn.Module):
    """A small network that was trained to tell a frame's scene: colours, pattern, and where the disc is.

    Its 24 numbers before the answer are a frame's features. Those of a random network hardly tell a drifted frame from
    a true one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(32 * 9, 24),
            nn.Tanh(),
        )
        self.answer = nn.Linear(24, 13)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[N, 3, 12, 12]` to `[N, 24]`."""
        features: Tensor = self.body(pixels)
        return features


def train_features(steps: int = 1500, batch: int = 64, seed: int = 0) -> Features:
    """A network that knows the world; always the same for a seed."""
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Features()
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    for step in range(steps):
        world, moment = scenes(batch, chance), torch.zeros(1)
        place = angle(world, moment)[:, 0]
        # A pattern turned by half a turn is the same one.
        wanted = [*world.colours.flatten(1).T, place.cos(), place.sin(), (2 * world.tilt).cos(), (2 * world.tilt).sin()]
        loss = (made.answer(made(render(world, moment)[:, :, 0])) - torch.stack(wanted, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        optimizer.step()
    return made.requires_grad_(False).eval()


def frechet(one: Tensor, other: Tensor) -> float:
    """|m₁ - m₂|² + tr(C₁ + C₂ - 2 √(C₁C₂)) of two sets of features, `[N, D]` each."""
    means, covariances = zip(*((x.double().mean(0), x.double().T.cov()) for x in (one, other)), strict=True)
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt().sum()
    apart = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * roots
    return max(0.0, float(apart))


def measure(made: Tensor, world: Scenes, times: Tensor, features: Features) -> Drift:
    """What `made`, pixels `[B, 3, T, 12, 12]`, is beside the truth at `times`, `[T]`."""
    truth = render(world, times)
    still = off_orbit()
    error = (made - truth)[..., still]
    seen, true = made[..., still], truth[..., still]
    place, cosine, look = _find(made, world)
    found = cosine > FOUND
    away = 2 * ORBIT * ((place - angle(world, times)) / 2).sin().abs()
    return Drift(
        error=float((made - truth).square().mean((1, 3, 4)).sqrt().mean()),
        look=float(look.mean()),
        background=float(error.square().mean((1, 3)).sqrt().mean()),
        colour=float((made - truth).mean((3, 4)).norm(dim=1).mean()),
        contrast=float((seen.std(3).mean(1) / true.std(3).mean(1)).mean()),
        sharpness=float((_gradient(made) / _gradient(truth)).mean()),
        found=float(found.float().mean()),
        position=float(away[found].mean()) if found.any() else float("nan"),
        motion=float(made.diff(dim=2).abs().mean() / truth.diff(dim=2).abs().mean()),
        frechet=frechet(*(features(pixels.transpose(1, 2).flatten(0, 1)) for pixels in (made, truth))),
    )


def _find(made: Tensor, world: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """The disc's angle in this scene's nearest frame, how well the disc fits, as a cosine, and how far the frame is, as
    a root mean square: `[B, T]` each."""
    behind = background(world)
    tried = torch.linspace(0, 2 * torch.pi, ANGLES + 1)[:-1].expand(len(world), ANGLES)
    shapes = (with_disc(world, behind, tried) - behind[:, :, None]).transpose(1, 2).flatten(2)
    stands_out = (made - behind[:, :, None]).transpose(1, 2).flatten(2)
    away, best = torch.cdist(stands_out, shapes).min(2)
    shape = shapes.gather(1, best[..., None].expand_as(stands_out))
    cosine = F.cosine_similarity(stands_out, shape, dim=2)
    return tried.gather(1, best), cosine, away / stands_out.shape[2] ** 0.5


def _gradient(pixels: Tensor) -> Tensor:
    """`[B]`"""
    return pixels.diff(dim=3).abs().mean((1, 2, 3, 4)) + pixels.diff(dim=4).abs().mean((1, 2, 3, 4))
