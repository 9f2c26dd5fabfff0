"""What all panes share: a frame with a number and a title, the topics that make them stale, and a line to search on."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from tui.panes.lines import Lines
from tui.panes.rows import Rows
from tui.view import Topic, View


class Words(Static):
    """A few lines of styled text that wrap; the same words again cost nothing."""

    DEFAULT_CSS = "Words { width: 1fr; height: auto; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__("", markup=False, id=id, classes=classes)
        self.said = Text()

    def say(self, text: Text, *, layout: bool = False) -> None:
        """`layout`: the number of lines may have changed."""
        if text != self.said or text.style != self.said.style:
            self.said = text
            self.update(text, layout=layout)


class Find(Input):
    """The line at a pane's foot on which a person writes what to look for. Enter keeps it, escape clears it."""

    DEFAULT_CSS = """
    Find, Find:focus { height: 1; border: none; padding: 0; background: $panel; }
    """

    class Left(Message):
        """A person is done with it. `needle`: what is looked for from now on."""

        def __init__(self, needle: str) -> None:
            super().__init__()
            self.needle = needle

    def on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "escape", "up", "down", "tab"):
            event.prevent_default().stop()
            self.post_message(self.Left("" if event.key == "escape" else self.value.strip()))


class Pane(Vertical):
    """A framed part of the cockpit. The frame pump calls `show` when one of the topics `shows` has moved."""

    shows: ClassVar[frozenset[Topic]]
    number: ClassVar[int]
    label: ClassVar[str]
    """Its name in the tabs, and in the frame until it has something better to say."""
    finds: ClassVar[str] = ""
    """What `/` does in it; "": nothing."""

    DEFAULT_CSS = """
    Pane {
        border: round $foreground 22%;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
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

    def restyle(self) -> None:
        """Forget what is drawn: the theme has changed."""
        for rows in self.query(Rows):
            rows.redraw()
        self.stale = True

    def copied(self, view: View) -> tuple[str, str]:
        """What `y` copies here, and what to call that."""
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

    @property
    def needle(self) -> str:
        """What is looked for in it."""
        return ""

    def ask_what_to_find(self) -> None:
        """Open the line for it."""
        if not self.query(Find):
            find = Find(self.needle, placeholder=f"{self.finds}; enter keeps it, escape ends it", select_on_focus=True)
            self.mount(find)
            self.screen.set_focus(find)

    def find(self, needle: str) -> None:
        """Look for it, as it is written; "" ends that."""

    def step_to(self, direction: int) -> str:
        """Go to the next thing of those that `n` and `N` go through, or the one before; says which, or why not."""
        return "nothing to step through here; / looks for something" if self.finds else "nothing to step through here"

    @on(Input.Changed)
    def _find_as_written(self, changed: Input.Changed) -> None:
        changed.stop()
        self.find(changed.value.strip())

    @on(Find.Left)
    async def _close_find(self, left: Find.Left) -> None:
        left.stop()
        await self.query(Find).remove()
        self.find(left.needle)
        self.target.focus()


class LinesPane(Pane):
    """A pane around `Lines`, which tells whether they follow, and is searched in them."""

    finds: ClassVar[str] = "search"

    @property
    def target(self) -> Lines:
        return self.query_one(Lines)

    @property
    def needle(self) -> str:
        return self.target.needle

    def find(self, needle: str) -> None:
        at, of = self.target.search(needle)
        self._tell_hit(at, of)

    def step_to(self, direction: int) -> str:
        if not self.needle:
            return super().step_to(direction)
        at, of = self.target.show_hit(direction)
        self._tell_hit(at, of)
        return ""

    def _tell_hit(self, at: int, of: int) -> None:
        if self.needle:
            self.subtitle(f"/{self.needle}  {at} of {of}, n and N" if of else f"/{self.needle}  nowhere")
        else:
            self._tell_place(Lines.Moved(self.target, self.target.following, 0, 0))

    @on(Lines.Moved)
    def _tell_place(self, moved: Lines.Moved) -> None:
        moved.stop()
        if self.needle:
            return
        if moved.following:
            self.subtitle("▼ follow")
        elif moved.fresh:
            self.subtitle(f"▲ {moved.fresh} new, end follows")
        elif moved.below:
            self.subtitle(f"▲ {moved.below} below" + (", end follows" if moved.lines.follows else ""))
        else:
            self.subtitle("")
