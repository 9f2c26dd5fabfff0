"""Drift to look at: curves in the terminal and as PNG, and a contact sheet of frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOURS = ("#8a8f98", "#d62728", "#ff9f1c", "#2ca02c", "#b279a2", "#e4a0a0", "#1f77b4")
INK, PAPER, RULE = "#222222", "#ffffff", "#dddddd"
Curves = Mapping[str, Sequence[float]]
"""A value per clip, by name."""


def terminal(curves: Curves, title: str, *, width: int = 100) -> str:
    """A line of bars per curve, all on one scale from zero, with the last value behind it."""
    names = max(len(name) for name in curves)
    highest = max(value for values in curves.values() for value in values) or 1.0
    bars = " ▁▂▃▄▅▆▇█"
    lines = [title]
    for name, values in curves.items():
        columns = min(len(values), max(10, width - names - 10))
        shown = [values[at * len(values) // columns] for at in range(columns)]
        drawn = "".join(bars[round(value / highest * (len(bars) - 1))] for value in shown)
        lines.append(f"{name:<{names}}  {drawn} {values[-1]:.3f}")
    return "\n".join(lines)


def png(curves: Curves, title: str, path: Path, *, size: tuple[int, int] = (960, 480)) -> None:
    """The curves from zero up, one line each, with a legend below the title."""
    width, height = size
    image = Image.new("RGB", size, PAPER)
    draw, small, large = ImageDraw.Draw(image), ImageFont.load_default(14), ImageFont.load_default(18)
    left, right, top, bottom = 70, width - 20, 80, height - 45
    highest = max(value for values in curves.values() for value in values) * 1.05 or 1.0
    clips = max(len(values) for values in curves.values())

    def place(clip: int, value: float) -> tuple[float, float]:
        across = clip / max(1, clips - 1)
        return left + across * (right - left), bottom - value / highest * (bottom - top)

    draw.text((left, 10), title, INK, large)
    for tick in range(5):
        value = highest * tick / 4
        _, y = place(0, value)
        draw.line((left, y, right, y), RULE)
        draw.text((left - 8, y), f"{value:.3g}", INK, small, anchor="rm")
    for clip in {0, *range(9, clips, 10)}:
        draw.text((place(clip, 0)[0], bottom + 8), str(clip + 1), INK, small, anchor="ma")
    draw.text(((left + right) / 2, height - 20), "clip", INK, small, anchor="ma")
    for values, colour in zip(curves.values(), COLOURS, strict=False):
        draw.line([place(clip, value) for clip, value in enumerate(values)], colour, 3, joint="curve")
    legend(draw, list(curves), left, right)
    image.save(path)


def legend(draw: ImageDraw.ImageDraw, names: Sequence[str], left: float, right: float) -> None:
    """Names beside their colours, below the title, on as many lines as they take between `left` and `right`."""
    font, at, y = ImageFont.load_default(14), left, 44
    for name, colour in zip(names, COLOURS, strict=False):
        wide = 50 + draw.textlength(name, font)
        if at + wide > right:
            at, y = left, y + 19
        draw.line((at, y, at + 22, y), colour, 4)
        draw.text((at + 28, y), name, INK, font, anchor="lm")
        at += wide


def sheet(rows: Mapping[str, Sequence[Tensor]], columns: Sequence[str], path: Path, *, scale: int = 6) -> None:
    """A contact sheet: per row a name and as many frames, `[3, H, W]` in -1..1, as there are columns."""
    frame = next(iter(rows.values()))[0]
    font = ImageFont.load_default(14)
    side, head, gap = frame.shape[-1] * scale, 26, 4
    label = 20 + math.ceil(max(font.getlength(name) for name in rows))
    across, down = label + len(columns) * (side + gap), head + len(rows) * (side + gap)
    image = Image.new("RGB", (across, down), PAPER)
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(columns):
        draw.text((label + column * (side + gap) + side / 2, 4), title, INK, font, anchor="ma")
    for row, (name, frames) in enumerate(rows.items()):
        y = head + row * (side + gap)
        draw.text((8, y + side / 2), name, INK, font, anchor="lm")
        for column, pixels in enumerate(frames):
            bytes_ = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
            shown = Image.fromarray(bytes_).resize((side, side), Image.Resampling.NEAREST)
            image.paste(shown, (label + column * (side + gap), y))
    image.save(path)
