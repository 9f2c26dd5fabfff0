"""A scrolled run of lines, drawn line by line: cheap to append to, and it follows its end until a person scrolls up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

WHEEL = 3
"""Lines a notch of the mouse wheel moves."""
SIDEWAYS = 8
"""Columns an arrow key moves."""


class Lines(Widget, can_focus=True):
    """Lines of text; those wider than the widget are cut off, or wrapped where `wrap` is set and they allow it."""

    DEFAULT_CSS = "Lines { height: 1fr; }"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_lines(-1)", show=False),
        Binding("down", "scroll_lines(1)", show=False),
        Binding("pageup", "scroll_pages(-1)", show=False),
        Binding("pagedown", "scroll_pages(1)", show=False),
        Binding("home", "to_start", show=False),
        Binding("end", "to_end", show=False),
        Binding("left", "sideways(-1)", show=False),
        Binding("right", "sideways(1)", show=False),
    ]

    class Moved(Message):
        """What is in sight has changed: whether the end is followed, and how many lines lie below."""

        def __init__(self, lines: Lines, following: bool, below: int) -> None:
            super().__init__()
            self.lines, self.following, self.below = lines, following, below

        @property
        def control(self) -> Lines:
            return self.lines

    def __init__(self, *, wrap: bool = False, follow: bool = True, keep: int = 5000, id: str | None = None) -> None:
        super().__init__(id=id)
        self._wrap = wrap
        self.follows = follow
        """Whether it goes to its end by itself whenever it stands there; otherwise it starts at its beginning."""
        self._keep = keep
        self._texts: list[Text] = []
        self._strips: list[Strip] = []
        self._heights: list[int] = []
        """How many strips each text takes."""
        self._top = 0
        self._left = 0
        self._at_end = follow
        self._wrapped_to = 0

    @property
    def following(self) -> bool:
        return self._at_end

    @property
    def text(self) -> str:
        """All of it, for tests and for copying."""
        return "\n".join(text.plain for text in self._texts)

    def set(self, texts: Sequence[Text], *, stay: bool = False) -> None:
        """Show these lines instead, from the first one on, or from the last where it follows; `stay`: from here."""
        self._texts, self._strips, self._heights = [], [], []
        if not stay:
            self._top = self._left = 0
            self._at_end = self.follows
        self.write(texts)

    def write(self, texts: Iterable[Text], *, replacing: int = 0) -> None:
        """Append lines, in place of the last `replacing` ones."""
        for _ in range(min(replacing, len(self._texts))):
            self._texts.pop()
            if height := self._heights.pop():
                del self._strips[-height:]
        for text in texts:
            strips = self._strips_of(text)
            self._texts.append(text)
            self._heights.append(len(strips))
            self._strips.extend(strips)
        self._drop_oldest()
        self._settle()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        at = self._top + y
        strip = self._strips[at] if at < len(self._strips) else Strip.blank(width)
        cropped = strip.crop(self._left, self._left + width)
        return cropped.extend_cell_length(width).apply_style(self.rich_style)

    def on_resize(self, event: events.Resize) -> None:
        if self._wrap and event.size.width != self._wrapped_to:
            texts, top, at_end = self._texts, self._top, self._at_end
            self._texts, self._strips, self._heights = [], [], []
            self._wrapped_to = event.size.width
            self.write(texts)
            self._top, self._at_end = top, at_end
        self._settle()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_scroll_lines(-WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_scroll_lines(WHEEL)

    def action_scroll_lines(self, count: int) -> None:
        self._top = max(0, min(self._lowest_top, self._top + count))
        self._at_end = self.follows and self._top >= self._lowest_top
        self._settle()

    def action_scroll_pages(self, count: int) -> None:
        self.action_scroll_lines(count * max(1, self.size.height - 1))

    def action_to_start(self) -> None:
        self.action_scroll_lines(-len(self._strips))

    def action_to_end(self) -> None:
        self.action_scroll_lines(len(self._strips))

    def action_sideways(self, direction: int) -> None:
        widest = max((strip.cell_length for strip in self._strips), default=0)
        self._left = max(0, min(widest - self.size.width, self._left + direction * SIDEWAYS))
        self.refresh()

    @property
    def _lowest_top(self) -> int:
        return max(0, len(self._strips) - self.size.height)

    def _strips_of(self, text: Text) -> list[Strip]:
        console = self.app.console
        wraps = self._wrap and self._wrapped_to and not text.no_wrap
        lines = text.wrap(console, self._wrapped_to) if wraps else [text]
        # Text.render leaves the text's own style out where no part of it has another one.
        style = console.get_style(text.style)
        return [Strip(Segment.apply_style(line.render(console), style)) for line in lines] or [Strip([])]

    def _drop_oldest(self) -> None:
        # In tenths of the whole, so that a full stream does not shift its lists at every line.
        if len(self._texts) <= self._keep + self._keep // 10:
            return
        excess = len(self._texts) - self._keep
        gone = sum(self._heights[:excess])
        del self._texts[:excess], self._heights[:excess], self._strips[:gone]
        self._top = max(0, self._top - gone)

    def _settle(self) -> None:
        self._top = self._lowest_top if self._at_end else min(self._top, self._lowest_top)
        self.post_message(self.Moved(self, self._at_end, max(0, self._lowest_top - self._top)))
        self.refresh()
