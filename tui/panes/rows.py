"""A few lines of a fixed place, of which only the cells that change are drawn: a line over SSH is paid by the cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from rich.segment import Segment
from rich.text import Text
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Rows(Widget):
    """One text a row; what is too wide is cut off."""

    DEFAULT_CSS = "Rows { width: 1fr; height: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.said = Text()
        self._strips: list[Strip] = []

    def say(self, text: Text) -> None:
        """Show the lines of `text`; the same again cost nothing."""
        if text == self.said and text.style == self.said.style:
            return
        self.said = text
        strips = [Strip(list(line.render(self.app.console, end=""))) for line in text.split("\n", allow_blank=True)]
        for row, pair in enumerate(_pairs(self._strips, strips)):
            if (span := _changed(*pair)) is not None:
                left, right = span
                self.refresh(Region(self.gutter.left + left, self.gutter.top + row, right - left, 1))
        self._strips = strips

    def redraw(self) -> None:
        """Say it anew, in the colours that are worn now."""
        self.said = Text()
        self._strips = []
        self.refresh()

    def render_line(self, y: int) -> Strip:
        strip = self._strips[y] if y < len(self._strips) else Strip([])
        return strip.crop_extend(0, self.size.width, None).apply_style(self.rich_style)


def _pairs(old: Sequence[Strip], new: Sequence[Strip]) -> list[tuple[Strip, Strip]]:
    rows = max(len(old), len(new))
    blank = Strip([])
    return [(old[row] if row < len(old) else blank, new[row] if row < len(new) else blank) for row in range(rows)]


def _changed(old: Strip, new: Strip) -> tuple[int, int] | None:
    """From which column to which two strips differ; None where they do not."""
    before, after = list(old), list(new)
    if before == after:
        return None
    left = _same(before, after)
    width = max(old.cell_length, new.cell_length)
    right = width - _same(before[::-1], after[::-1]) if old.cell_length == new.cell_length else width
    return left, max(left + 1, right)


def _same(before: Sequence[Segment], after: Sequence[Segment]) -> int:
    """Columns of the segments at the start that are the same."""
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
    return sum(segment.cell_length for segment, _ in equal)
