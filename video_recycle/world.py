"""A small world whose truth is known at every moment: a patterned background, and a disc that swings before it.

Scenes differ in colours, pattern and the disc's place; its size and its swing are the same in all. A swing takes as
long as a clip's new frames, so every clip begins and ends alike, and no model can lose the beat: all that drifts in a
long video is how things look. What a model keeps of that for hundreds of frames, and whether the disc still swings, is
measured against the truth in `measure`.

Pixels are `[B, 3, T, 12, 12]` in -1..1; latents are those, scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 12
LATENT = (3, SIZE, SIZE)
"""Channels, height and width of a latent frame."""
SCALE = 2.0
"""Latents are so many times the pixels, about unit variance."""
ORBIT, RADIUS, EDGE = 3.2, 1.5, 1.6
"""Pixels: from the middle to the disc's home, the disc's radius, and the width its rim is softened over."""
PERIOD = 4
"""Frames of a swing."""
SWING = 0.25
"""Radians along the orbit, to either side of home: eight tenths of a pixel."""


@dataclass(frozen=True)
class Scenes:
    """B scenes. colours: `[B, 3, 3]` of two background colours and the disc's, each RGB; the rest `[B]`."""

    colours: Tensor
    tilt: Tensor
    wavelength: Tensor
    offset: Tensor
    phase: Tensor

    def __len__(self) -> int:
        return len(self.phase)

    def __getitem__(self, rows: slice) -> Scenes:
        return Scenes(**{name: value[rows] for name, value in vars(self).items()})


def scenes(count: int, chance: torch.Generator) -> Scenes:
    """So many scenes, drawn by `chance`; their three colours are always well apart."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=chance)

    tries = torch.rand(count, 64, 3, 3, generator=chance) * 1.7 - 0.85
    apart = torch.stack([(tries[:, :, a] - tries[:, :, b]).norm(dim=-1) for a, b in ((0, 1), (0, 2), (1, 2))])
    best = apart.amin(0).gt(0.8).float().argmax(1)
    return Scenes(
        colours=tries[torch.arange(count), best],
        tilt=uniform(0, math.pi),
        wavelength=uniform(8, 13),
        offset=uniform(0, 2 * math.pi),
        phase=uniform(0, 2 * math.pi),
    )


def background(made: Scenes) -> Tensor:
    """Pixels without the disc, `[B, 3, 12, 12]`."""
    y, x = _pixels()
    along = x * made.tilt.cos()[:, None, None] + y * made.tilt.sin()[:, None, None]
    wave = torch.sin(2 * math.pi * along / made.wavelength[:, None, None] + made.offset[:, None, None])
    mix = (0.5 + 0.5 * torch.tanh(2.5 * wave))[:, None]
    first, second = (made.colours[:, which, :, None, None] for which in (0, 1))
    return (1 - mix) * first + mix * second


def angle(made: Scenes, times: Tensor) -> Tensor:
    """Where the disc is on its orbit at `times`, frames, `[T]` or `[B, T]`: radians, `[B, T]`."""
    return made.phase[:, None] + SWING * torch.sin(2 * math.pi / PERIOD * times.to(made.phase))


def with_disc(made: Scenes, behind: Tensor, angles: Tensor) -> Tensor:
    """`behind`, `[B, 3, 12, 12]`, with the disc at each of `angles`, `[B, N]`: pixels `[B, 3, N, 12, 12]`."""
    y, x = _pixels()
    away = torch.hypot(x - ORBIT * angles.cos()[..., None, None], y - ORBIT * angles.sin()[..., None, None])
    cover = torch.sigmoid((RADIUS - away) / (EDGE / 4))[:, None]
    return (1 - cover) * behind[:, :, None] + cover * made.colours[:, 2, :, None, None, None]


def render(made: Scenes, times: Tensor) -> Tensor:
    """Pixels at `times`, frames from the scene's start, `[T]` or `[B, T]`."""
    return with_disc(made, background(made), angle(made, times))


def off_orbit() -> Tensor:
    """The pixels the disc never touches, bool `[12, 12]`."""
    y, x = _pixels()
    return (torch.hypot(x, y) - ORBIT).abs() > RADIUS + EDGE


def encode(pixels: Tensor) -> Tensor:
    """Latents of `pixels`."""
    return SCALE * pixels


def decode(latents: Tensor) -> Tensor:
    """Pixels of `latents`, cut off at -1 and 1 as a screen does."""
    return (latents / SCALE).clamp(-1, 1)


def _pixels() -> tuple[Tensor, Tensor]:
    """Each pixel's place from the middle, `[12, 12]` each."""
    line = torch.arange(SIZE) - (SIZE - 1) / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x
