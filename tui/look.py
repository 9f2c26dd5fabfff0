"""Colours, and the few glyphs that draw: bars and sparklines. Every one is a cell wide; words come before colours.

The colours are those of the theme that is worn: `wear` takes them over, and whoever draws reads them anew.
"""

from __future__ import annotations

import locale
from collections.abc import Mapping, Sequence

from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme as RichTheme
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

DARK = Theme(
    name="labtop",
    primary="#6fb3f2",
    secondary="#6f7b8a",
    accent="#b79cf0",
    success="#86c98e",
    warning="#e0b46c",
    error="#ec7a7a",
    foreground="#c5cdd8",
    background="#10141a",
    surface="#141a21",
    panel="#1a212a",
    dark=True,
    variables={
        "block-cursor-background": "#25303c",
        "block-cursor-foreground": "#c5cdd8",
        "block-cursor-text-style": "none",
    },
)
LIGHT = Theme(
    name="labtop-light",
    primary="#1f63b0",
    secondary="#67707c",
    accent="#6d43b5",
    success="#1f7a35",
    warning="#8a5a00",
    error="#b3261e",
    foreground="#1d242d",
    background="#fbfbf9",
    surface="#f4f4f1",
    panel="#e9eaec",
    dark=False,
    variables={
        "block-cursor-background": "#d5dde8",
        "block-cursor-foreground": "#1d242d",
        "block-cursor-text-style": "none",
    },
)

INK = FAINT = LINE = GROUND = BLUE = GREEN = RED = AMBER = VIOLET = ADDED = REMOVED = ""
"""What text, its lesser parts and thin lines are drawn in, what they stand on, five that mean something, and what a
diff's lines stand on."""


def wear(variables: Mapping[str, str]) -> None:
    """Take the colours of a theme, given its CSS variables."""
    global INK, FAINT, LINE, GROUND, BLUE, GREEN, RED, AMBER, VIOLET, ADDED, REMOVED
    ink, ground = (Color.parse(variables[name]) for name in ("foreground", "background"))
    INK, GROUND = _name(ink), _name(ground)
    names = ("primary", "success", "error", "warning", "accent")
    BLUE, GREEN, RED, AMBER, VIOLET = (_name(Color.parse(variables[name])) for name in names)
    if ground.ansi is not None:
        # The terminal's own colours, of which nobody knows how they would mix.
        FAINT, LINE, ADDED, REMOVED = "bright_black", "bright_black", "", ""
        return
    FAINT = _name(ground.blend(ink, 0.52 if ground.brightness < 0.5 else 0.66))
    LINE = _name(ground.blend(ink, 0.16))
    green, red = (Color.parse(variables[name]) for name in ("success", "error"))
    ADDED, REMOVED = (f"on {_name(ground.blend(colour, 0.13))}" for colour in (green, red))


def _name(colour: Color) -> str:
    return colour.rich_color.name


wear(DARK.to_color_system().generate())


def status(verdict: str | None) -> str:
    """How a verdict is written wherever it stands; an experiment under way is blue."""
    return {"keep": f"bold {GREEN}", "discard": FAINT, "crash": RED, "reject": AMBER}.get(verdict or "", BLUE)


def audit(colour: str | None) -> str:
    return {"green": GREEN, "amber": f"bold {AMBER}", "red": f"bold {RED}"}.get(colour or "", FAINT)


def mode(word: str) -> str:
    """The header's first word: black on a colour."""
    ground = {"RUNNING": GREEN, "PAUSED": AMBER, "STEP": BLUE, "CONNECTING": FAINT}.get(word, RED)
    return f"bold {GROUND} on {ground}"


def markdown() -> RichTheme:
    """How Rich draws the agent's Markdown."""
    styles = {
        "code": AMBER,
        "code_block": AMBER,
        "block_quote": FAINT,
        "list": INK,
        "item.bullet": BLUE,
        "item.number": BLUE,
        "hr": LINE,
        "h1": f"bold {BLUE}",
        "h2": f"bold {BLUE}",
        "h3": f"bold {BLUE}",
        "h4": f"bold {INK}",
        "link": BLUE,
        "link_url": BLUE,
        "table.border": LINE,
        "table.header": f"bold {INK}",
    }
    return RichTheme({f"markdown.{name}": style for name, style in styles.items()})


class Ascii(LineFilter):
    """Puts ASCII in the place of every other glyph that this cockpit draws, for fonts and readers that want it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else Segment(ascii_only(segment.text), segment.style, segment.control)
            for segment in segments
        ]


_ASCII = str.maketrans(
    {
        **dict.fromkeys("─━═╌┄╍┅⎯▔▁▂▃", "-"),
        **dict.fromkeys("│┃║╎┆▏▕▌▐▎▊", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛╔╗╚╝", "+"),
        **dict.fromkeys("▄▅", "="),
        **dict.fromkeys("▆▇█▀", "#"),
        **dict.fromkeys("░▒▓", ":"),
        "●": "@", "•": ".", "○": "o", "◆": "*", "×": "x", "·": ".", "▸": ">", "▶": ">", "▼": "v", "▲": "^", "✓": "+",
        "✗": "x", "…": "~", "—": "-", "–": "-", "σ": "s", "±": "~", "°": " ", "≫": ">", "Δ": "d", "→": ">", "“": '"',
        "”": '"', "’": "'", "‘": "'", "☰": "=", "⭘": "o", "❯": ">",
    }
)  # fmt: skip


def ascii_only(text: str) -> str:
    """As wide as `text`: what has no like in ASCII becomes a `?`, a braille cell a `.`, or from half on a `:`."""
    return "".join(
        character
        if character.isascii()
        else " "
        if character in "\u2800\u00a0"
        else (":" if (ord(character) - 0x2800).bit_count() > 3 else ".")
        if 0x2800 <= ord(character) < 0x2900
        else "?"
        for character in text.translate(_ASCII)
    )


def wants_ascii() -> bool:
    """Whether the locale says that the terminal shows nothing else."""
    return "UTF" not in locale.getpreferredencoding(False).upper()


_LEVELS = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int, style: str = "") -> Text:
    """A line of `width` cells, filled from the left by `share` in 0..1."""
    filled = round(min(1.0, max(0.0, share)) * width)
    return Text.assemble(("━" * filled, style or BLUE), ("─" * (width - filled), LINE))


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


def area(values: Sequence[float], width: int, height: int) -> list[str]:
    """A curve of `values` in rows of blocks, the highest at the top, what lies beyond its upper tenth cut off there."""
    shown = thin_out([value for value in values if value == value and abs(value) != float("inf")], width)
    if not shown:
        return []
    bottom, top = min(shown), sorted(shown)[int(0.9 * (len(shown) - 1))]
    reach = (top - bottom) or 1.0
    eighths = [max(1, min(8 * height, round((value - bottom) / reach * 8 * height))) for value in shown]
    return [
        "".join((" " + _LEVELS)[min(8, max(0, level - 8 * (height - 1 - row)))] for level in eighths)
        for row in range(height)
    ]


def levels(shares: Sequence[float]) -> str:
    """One cell a share in 0..1, for instance of each CPU core."""
    return "".join(_LEVELS[min(7, max(0, int(share * 8)))] for share in shares)


def thin_out(values: Sequence[float], points: int) -> list[float]:
    """At most `points` of the values, evenly taken, the last one always among them."""
    if len(values) <= points:
        return list(values)
    return [values[(index + 1) * len(values) // points - 1] for index in range(points)]
