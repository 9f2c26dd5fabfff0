"""Colours, and the few glyphs that draw: bars and sparklines. Every one is a cell wide; words come before colours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.theme import Theme

INK = "#c5cdd8"
FAINT = "#6f7b8a"
LINE = "#2c3540"
GROUND = "#10141a"
BLUE = "#6fb3f2"
GREEN = "#86c98e"
RED = "#ec7a7a"
AMBER = "#e0b46c"
VIOLET = "#b79cf0"

STATUS_STYLES = {
    "keep": f"bold {GREEN}",
    "discard": FAINT,
    "crash": RED,
    "reject": AMBER,
}
"""How a verdict is written wherever it stands; an experiment under way is blue."""

AUDIT_STYLES = {"green": GREEN, "amber": f"bold {AMBER}", "red": f"bold {RED}"}

MODE_STYLES = {
    "RUNNING": f"bold {GROUND} on {GREEN}",
    "PAUSED": f"bold {GROUND} on {AMBER}",
    "STEP": f"bold {GROUND} on {BLUE}",
    "STOPPED": f"bold {GROUND} on {RED}",
    "NO ENGINE": f"bold {GROUND} on {RED}",
    "CONNECTING": f"bold {GROUND} on {FAINT}",
}

THEME = Theme(
    name="labtop",
    primary=BLUE,
    secondary=FAINT,
    accent=BLUE,
    success=GREEN,
    warning=AMBER,
    error=RED,
    foreground=INK,
    background=GROUND,
    surface="#141a21",
    panel="#1a212a",
    dark=True,
    variables={"block-cursor-background": "#25303c", "block-cursor-foreground": INK, "block-cursor-text-style": "none"},
)

_LEVELS = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int, style: str = BLUE) -> Text:
    """A line of `width` cells, filled from the left by `share` in 0..1."""
    filled = round(min(1.0, max(0.0, share)) * width)
    return Text.assemble(("━" * filled, style), ("─" * (width - filled), LINE))


def spark(values: Sequence[float], width: int, *, low: float | None = None, high: float | None = None) -> str:
    """The latest `width` values as levels between `low` and `high`, by default their own extremes."""
    shown = [value for value in values if value == value and abs(value) != float("inf")][-width:]
    if not shown or width <= 0:
        return ""
    bottom = min(shown) if low is None else low
    top = max(shown) if high is None else high
    reach = top - bottom
    if reach <= 0:
        return _LEVELS[0] * len(shown)
    return "".join(_LEVELS[min(7, max(0, int((value - bottom) / reach * 8)))] for value in shown)


def levels(shares: Sequence[float]) -> str:
    """One cell a share in 0..1, for instance of each CPU core."""
    return "".join(_LEVELS[min(7, max(0, int(share * 8)))] for share in shares)


def thin_out(values: Sequence[float], points: int) -> list[float]:
    """At most `points` of the values, evenly taken, the last one always among them."""
    if len(values) <= points:
        return list(values)
    return [values[(index + 1) * len(values) // points - 1] for index in range(points)]
