"""A page of lines over the cockpit: scrolled with the arrows, left with escape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from tui import look
from tui.panes.lines import Lines
from tui.panes.pane import Words


class Page(Screen[None]):
    DEFAULT_CSS = """
    Page Lines { padding: 1 2; }
    Page #title, Page #keys { height: 1; background: $panel; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", show=False)]

    def compose(self) -> ComposeResult:
        yield Words(id="title")
        yield Lines(wrap=True, follow=False)
        yield Words(id="keys")

    def fill(self, title: str, blocks: Sequence[RenderableType], keys: Text, *, stay: bool = False) -> None:
        """`stay`: the same page, of which a person may read the middle."""
        self.query_one("#title", Words).say(Text(title, f"bold {look.INK}"))
        self.query_one("#keys", Words).say(keys)
        self.query_one(Lines).set(blocks, stay=stay)

    def action_leave(self) -> None:
        self.dismiss(None)
