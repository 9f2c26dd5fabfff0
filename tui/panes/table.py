"""A table of which only the rows in sight are made: a study of ten thousand experiments scrolls like one of ten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui import look

WHEEL = 3


class Column(NamedTuple):
    title: str
    width: int
    right: bool = False
    spare: int = 0
    """Where the last column would have no room, the lowest of these is left out first; 0 stays."""


class Table(Widget, can_focus=True):
    """Rows under a header, and a cursor in them. What a row says comes from `row_of`, asked for when it is in sight."""

    DEFAULT_CSS = "Table { height: 1fr; }"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "to(0)", show=False),
        Binding("end", "to(-1)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Moved(Message):
        """The cursor came to another row."""

    class Opened(Message):
        """A person chose the row under the cursor."""

    class Sorted(Message):
        """A person clicked a column's title."""

        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

    def __init__(self) -> None:
        super().__init__()
        self.rows: Sequence[int] = ()
        """What identifies each row, from the top."""
        self._row_of: Callable[[int], Sequence[Text]] = lambda row: ()
        self._columns: dict[int, tuple[Column, int]] = {}
        """By their place in a row: the columns that have room, with the width of each."""
        self._titles: dict[int, str] = {}
        self._drawn: dict[int, Strip] = {}
        self._top = 0
        self.cursor = 0

    @property
    def pointed(self) -> int | None:
        """What identifies the row under the cursor."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    @property
    def _height(self) -> int:
        return max(1, self.size.height - 1)

    def lay_out(self, columns: dict[int, tuple[Column, int]], titles: dict[int, str]) -> None:
        """Which columns stand there, how wide, and under which titles."""
        if (columns, titles) != (self._columns, self._titles):
            self._columns, self._titles = columns, titles
            self._drawn.clear()
            self.refresh()

    def fill(self, rows: Sequence[int], row_of: Callable[[int], Sequence[Text]], *, follow: bool) -> None:
        """Show other rows. The cursor stays on its row, or, with `follow`, on the first."""
        pointed, shown = self.pointed, list(self.rows[self._top : self._top + self._height])
        offset = self.cursor - self._top
        self._row_of = row_of
        self.rows = rows
        if follow or pointed is None:
            self.cursor = self._top = 0
        else:
            # Experiments are few enough to look for one, and a row that is gone leaves the cursor where it was.
            self.cursor = rows.index(pointed) if pointed in rows else min(self.cursor, max(0, len(rows) - 1))
            self._top = max(0, self.cursor - offset)
        self._clamp()
        if shown != list(rows[self._top : self._top + self._height]):
            self.refresh()
        if self.pointed != pointed:
            self.post_message(self.Moved())

    def forget(self, rows: Sequence[int] | None = None) -> None:
        """Make rows anew, or all of them, since what they say has changed."""
        if rows is None:
            self._drawn.clear()
            self.refresh()
            return
        for row in rows:
            if self._drawn.pop(row, None) is not None and row in self.rows[self._top : self._top + self._height]:
                self._refresh_row(self.rows.index(row))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._header().crop_extend(0, width, self.rich_style).apply_style(self.rich_style)
        at = self._top + y - 1
        if at >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        strip = self._strip(self.rows[at]).crop_extend(0, width, None)
        if at == self.cursor:
            strip = strip.apply_style(self._cursor_style())
        return strip.apply_style(self.rich_style)

    def _cursor_style(self) -> Style:
        if self.app.no_color:
            return Style(reverse=True) if self.has_focus else Style(underline=True)
        variables = self.app.theme_variables
        ground = variables["primary-muted"] if self.has_focus else variables["panel"]
        if ground.startswith("#"):
            return Style(bgcolor=ground)
        return Style(reverse=True) if self.has_focus else Style(underline=True)

    def _strip(self, row: int) -> Strip:
        if row not in self._drawn:
            if len(self._drawn) > 500:
                self._drawn.clear()
            cells = self._row_of(row)
            shown = [(cells[at], *column) for at, column in self._columns.items()]
            self._drawn[row] = self._line([(_under(text, column), column, width) for text, column, width in shown])
        return self._drawn[row]

    def _header(self) -> Strip:
        return self._line([(Text(self._titles[at], look.FAINT), *column) for at, column in self._columns.items()])

    def _line(self, cells: Sequence[tuple[Text, Column, int]]) -> Strip:
        line = Text(no_wrap=True, end="")
        for text, column, width in cells:
            cell = text.copy()
            if column.right:
                cell.align("right", width)
            else:
                cell.truncate(width, overflow="ellipsis", pad=True)
            line.append_text(cell)
        return Strip(list(line.render(self.app.console)))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self._clamp()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            left = 0
            for at, (_, width) in self._columns.items():
                left += width
                if event.x < left:
                    self.post_message(self.Sorted(at))
                    return
            return
        at = self._top + event.y - 1
        if at < len(self.rows):
            if at == self.cursor:
                self.post_message(self.Opened())
            self.go(at)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.go(self.cursor - WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.go(self.cursor + WHEEL)

    def action_move(self, by: int) -> None:
        self.go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.go(self.cursor + by * max(1, self._height - 1))

    def action_to(self, at: int) -> None:
        self.go(len(self.rows) - 1 if at < 0 else at)

    def action_open(self) -> None:
        if self.pointed is not None:
            self.post_message(self.Opened())

    def go(self, at: int) -> None:
        """Put the cursor on a row, by its place."""
        cursor, top = self.cursor, self._top
        self.cursor = max(0, min(len(self.rows) - 1, at))
        self._clamp()
        if self.cursor == cursor:
            return
        if self._top != top:
            self.refresh()
        else:
            self._refresh_row(cursor)
            self._refresh_row(self.cursor)
        self.post_message(self.Moved())

    def _clamp(self) -> None:
        """Keep the cursor in sight."""
        self._top = min(self._top, self.cursor, max(0, len(self.rows) - self._height))
        self._top = max(self._top, self.cursor - self._height + 1, 0)

    def _refresh_row(self, at: int) -> None:
        y = at - self._top
        if 0 <= y < self._height:
            self.refresh(Region(0, y + 1, self.size.width, 1))


def _under(text: Text, column: Column) -> Text:
    """A cell as far in as its column's title."""
    shown = text.copy()
    shown.pad_left(0 if column.right else len(column.title) - len(column.title.lstrip()))
    return shown
