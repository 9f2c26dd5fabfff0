"""A scrolled run of lines, drawn line by line: cheap to append to, and it follows its end until a person scrolls up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style, StyleType
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

WHEEL = 3
"""Lines a notch of the mouse wheel moves."""
SIDEWAYS = 8
"""Columns an arrow key moves."""


class Lines(Widget, can_focus=True):
    """Lines of text, and blocks of what Rich draws as several.

    Lines wider than the widget are cut off, or wrapped where `wrap` is set and they allow it.
    """

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
        """What is in sight has changed: whether the end is followed, how many lines lie below, how many are new."""

        def __init__(self, lines: Lines, following: bool, below: int, fresh: int) -> None:
            super().__init__()
            self.lines, self.following, self.below, self.fresh = lines, following, below, fresh

        @property
        def control(self) -> Lines:
            return self.lines

    def __init__(self, *, wrap: bool = False, follow: bool = True, keep: int = 5000, id: str | None = None) -> None:
        super().__init__(id=id)
        self._wrap = wrap
        self.follows = follow
        """Whether it goes to its end by itself whenever it stands there; otherwise it starts at its beginning."""
        self._keep = keep
        """Lines on the screen, after wrapping."""
        self._blocks: list[RenderableType] = []
        self._strips: list[Strip | Text] = []
        """A text that takes one line becomes a strip only once it is in sight: of a flood most never is."""
        self._heights: list[int] = []
        """How many strips each block takes."""
        self._top = 0
        self._left = 0
        self._at_end = follow
        self._fresh = 0
        """Strips that came since it was scrolled away from its end."""
        self._wrapped_to = 0
        self.needle = ""
        """What is searched for; every place of it is marked."""
        self._hit: int | None = None
        """The strip that the search stands on."""

    @property
    def following(self) -> bool:
        return self._at_end

    @property
    def text(self) -> str:
        """All of it, for tests and for copying."""
        return "\n".join(
            block.plain if isinstance(block, Text) else str(getattr(block, "markup", "")) for block in self._blocks
        )

    def set(self, blocks: Sequence[RenderableType], *, stay: bool = False) -> None:
        """Show these instead, from the first one on, or from the last where it follows; `stay`: from here."""
        self._blocks, self._strips, self._heights = [], [], []
        if not stay:
            self._top = self._left = self._fresh = 0
            self._at_end = self.follows
        self.write(blocks)
        self.refresh()

    def write(self, blocks: Iterable[RenderableType], *, replacing: int = 0) -> None:
        """Append blocks, in place of the last `replacing` ones."""
        before = len(self._strips)
        for _ in range(min(replacing, len(self._blocks))):
            self._blocks.pop()
            if height := self._heights.pop():
                del self._strips[-height:]
        first = len(self._strips)
        for block in blocks:
            strips = self._strips_of(block)
            self._blocks.append(block)
            self._heights.append(len(strips))
            self._strips.extend(strips)
        if self.follows and not self._at_end:
            self._fresh += max(0, len(self._strips) - before)
        gone = self._drop_oldest()
        self._settle(changed_from=max(0, first - gone))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        at = self._top + y
        strip = self._strip(at) if at < len(self._strips) else Strip.blank(width)
        if self.needle:
            strip = marked(strip, self.needle)
        cropped = strip.crop(self._left, self._left + width)
        return cropped.extend_cell_length(width).apply_style(self.rich_style)

    def on_resize(self, event: events.Resize) -> None:
        if self._wrap and self.size.width != self._wrapped_to:
            self._wrapped_to = self.size.width  # The event's is the padding's too.
            self.redraw()
        self._settle()
        self.refresh()

    def redraw(self) -> None:
        """Draw all blocks anew, as wide as the widget is now; what is in sight stays."""
        blocks, top, at_end, fresh = self._blocks, self._top, self._at_end, self._fresh
        self._blocks, self._strips, self._heights = [], [], []
        self.write(blocks)
        self._top, self._at_end, self._fresh = top, at_end, fresh
        self._settle()
        self.refresh()

    def show_hit(self, direction: int) -> tuple[int, int]:
        """Go to the next line that has the needle, or the one before; gives its place and how many there are."""
        wanted = self.needle.casefold()
        said = (strip.plain if isinstance(strip, Text) else strip.text for strip in self._strips)
        hits = [at for at, text in enumerate(said) if wanted in text.casefold()] if wanted else []
        if not hits:
            return 0, 0
        here = self._top if self._hit is None else self._hit
        if direction > 0:
            self._hit = next((at for at in hits if at > here), hits[0])
        else:
            self._hit = next((at for at in reversed(hits) if at < here), hits[-1])
        self.show_strip(self._hit)
        return hits.index(self._hit) + 1, len(hits)

    def search(self, needle: str) -> tuple[int, int]:
        """Mark a text everywhere, and go to its last place; "" ends that."""
        self.needle, self._hit = needle, len(self._strips) if self.follows else -1
        self.refresh()
        return self.show_hit(-1 if self.follows else 1)

    def show_block(self, index: int) -> None:
        """Bring a block to the top."""
        self.show_strip(sum(self._heights[:index]), above=0)

    def show_strip(self, at: int, *, above: int = 2) -> None:
        self.action_scroll_lines(at - above - self._top)

    def first_block(self) -> int:
        """The block at the top of what is in sight."""
        at = 0
        for index, height in enumerate(self._heights):
            at += height
            if at > self._top:
                return index
        return len(self._heights)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_scroll_lines(-WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_scroll_lines(WHEEL)

    def action_scroll_lines(self, count: int) -> None:
        top = self._top
        self._top = max(0, min(self._lowest_top, self._top + count))
        self._at_end = self.follows and self._top >= self._lowest_top
        self._settle()
        if self._top != top:
            self.refresh()

    def action_scroll_pages(self, count: int) -> None:
        self.action_scroll_lines(count * max(1, self.size.height - 1))

    def action_to_start(self) -> None:
        self.action_scroll_lines(-len(self._strips))

    def action_to_end(self) -> None:
        self.action_scroll_lines(len(self._strips))

    def action_sideways(self, direction: int) -> None:
        lengths = (strip.cell_len if isinstance(strip, Text) else strip.cell_length for strip in self._strips)
        widest = max(lengths, default=0)
        self._left = max(0, min(widest - self.size.width, self._left + direction * SIDEWAYS))
        self.refresh()

    @property
    def _lowest_top(self) -> int:
        return max(0, len(self._strips) - self.size.height)

    def _strip(self, at: int) -> Strip:
        strip = self._strips[at]
        if isinstance(strip, Text):
            strip = self._strips[at] = self._line(strip, strip.style)
        return strip

    def _line(self, line: Text, style: StyleType) -> Strip:
        # Text.render leaves the text's own style out where no part of it has another one.
        console = self.app.console
        return Strip(Segment.apply_style(line.render(console), console.get_style(style)))

    def _strips_of(self, block: RenderableType) -> Sequence[Strip | Text]:
        console, width = self.app.console, self._wrapped_to
        if not isinstance(block, Text):
            options = console.options.update(width=max(1, width or self.size.width), height=None)
            return [Strip(line) for line in console.render_lines(block, options, pad=False)]
        if not self._wrap or not width or block.no_wrap or (len(block) <= width and block.cell_len <= width):
            return [block]
        return [self._line(line, block.style) for line in block.wrap(console, width)] or [Strip([])]

    def _drop_oldest(self) -> int:
        """Gives how many strips went."""
        # In tenths of the whole, so that a full stream does not shift its lists at every line.
        if len(self._strips) <= self._keep + self._keep // 10:
            return 0
        gone = excess = 0
        while len(self._strips) - gone > self._keep and excess < len(self._blocks) - 1:
            gone += self._heights[excess]
            excess += 1
        del self._blocks[:excess], self._heights[:excess], self._strips[:gone]
        self._top = max(0, self._top - gone)
        self._hit = None
        return gone

    def _settle(self, *, changed_from: int | None = None) -> None:
        """Stand where it should, and draw what that moved, or what changed of what is in sight."""
        top = self._top
        self._top = self._lowest_top if self._at_end else min(self._top, self._lowest_top)
        if self._at_end:
            self._fresh = 0
        self.post_message(self.Moved(self, self._at_end, max(0, self._lowest_top - self._top), self._fresh))
        if self._top != top:
            self.refresh()
        elif changed_from is not None:
            row = max(0, changed_from - self._top)
            if row < self.size.height:
                left, above = self.gutter.left, self.gutter.top
                self.refresh(Region(left, above + row, self.size.width, self.size.height - row))


def marked(strip: Strip, needle: str) -> Strip:
    """The strip with every place of `needle` in reverse, whatever its case."""
    text, wanted = strip.text.casefold(), needle.casefold()
    if wanted not in text or len(text) != len(strip.text):
        return strip
    reverse = Style(reverse=True)
    pieces, at, line = [], 0, Text(strip.text)
    while (found := text.find(wanted, at)) >= 0:
        start, end = line[:found].cell_len, line[: found + len(wanted)].cell_len
        pieces += [strip.crop(line[:at].cell_len, start), strip.crop(start, end).apply_style(reverse)]
        at = found + len(wanted)
    return Strip.join([*pieces, strip.crop(line[:at].cell_len, None)])
