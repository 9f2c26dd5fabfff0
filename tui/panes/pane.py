"""What all panes share: a frame with a number and a title, and the topics that make them stale."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from tui.panes.lines import Lines
from tui.view import Topic, View


class Words(Static):
    """A few lines of styled text of a fixed place; the same words again cost nothing."""

    DEFAULT_CSS = "Words { width: 1fr; height: auto; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__("", markup=False, id=id, classes=classes)
        self.said = Text()

    def say(self, text: Text, *, layout: bool = False) -> None:
        """`layout`: the number of lines may have changed."""
        if text != self.said or text.style != self.said.style:
            self.said = text
            self.update(text, layout=layout)


class Pane(Vertical):
    """A framed part of the cockpit. The frame pump calls `show` when one of the topics `shows` has moved."""

    shows: ClassVar[frozenset[Topic]]
    number: ClassVar[int]
    label: ClassVar[str]
    """Its name in the tabs, and in the frame until it has something better to say."""

    DEFAULT_CSS = """
    Pane {
        border: round $panel-lighten-2;
        border-title-color: $secondary;
        border-subtitle-color: $secondary;
        border-title-style: none;
        padding: 0 1;
    }
    Pane:focus, Pane:focus-within {
        border: round $primary;
        border-title-color: $primary;
        border-title-style: bold;
    }
    Pane:nocolor:focus, Pane:nocolor:focus-within { border: heavy $primary; }
    """

    def __init__(self) -> None:
        super().__init__(id=f"pane-{self.number}")
        self.stale = True
        self._titles = ("", "")

    def compose(self) -> ComposeResult:
        yield from ()

    def on_mount(self) -> None:
        self.entitle(self.label)

    def show(self, view: View) -> None:
        """Bring what is drawn up to date."""
        raise NotImplementedError

    def entitle(self, title: str) -> None:
        """Put `title`, foreign or not, into the frame behind the pane's number."""
        self._set_titles(f"{self.number} {title}", self._titles[1])

    def subtitle(self, words: str) -> None:
        self._set_titles(self._titles[0], words)

    def _set_titles(self, above: str, below: str) -> None:
        if (above, below) != self._titles:
            self._titles = above, below
            self.border_title, self.border_subtitle = Text(above), Text(below)

    @property
    def target(self) -> Widget:
        """The widget that takes the focus for the pane."""
        return self

    @on(Lines.Moved)
    def _tell_place(self, moved: Lines.Moved) -> None:
        moved.stop()
        if moved.following:
            self.subtitle("▼ follow")
        elif moved.below:
            self.subtitle(f"▲ {moved.below} below" + (", end follows" if moved.lines.follows else ""))
        else:
            self.subtitle("")
