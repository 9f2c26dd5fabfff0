"""The log: what the trial prints, and what the engine does, as it comes."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult

from tui import look, words
from tui.panes.lines import Lines
from tui.panes.pane import LinesPane
from tui.view import LINES_KEPT, Line, Topic, View


class LogPane(LinesPane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("log",))
    number = 6
    label = "log"

    def __init__(self) -> None:
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        self._place = 0
        self._epoch = -1
        self._empty = True

    def compose(self) -> ComposeResult:
        yield Lines(wrap=True, keep=LINES_KEPT)

    def show(self, view: View) -> None:
        lines = self.target
        if view.log.epoch != self._epoch or self._empty:
            self._place, self._epoch = 0, view.log.epoch
            lines.set([])
        fresh = view.log.since(self._place)
        self._place = view.log.end
        self._empty = not self._place
        if self._empty:
            lines.set([Text("the trial's output will stand here", look.FAINT)])
        else:
            lines.write(_styled(line) for line in fresh)

    def restyle(self) -> None:
        super().restyle()
        self._begin()

    def copied(self, view: View) -> tuple[str, str]:
        return "\n".join(line.text for line in view.log.since(0)), "the log"


def _styled(line: Line) -> Text:
    """The engine's lines are wrapped; a script lays its own out, and they are cut off."""
    if line.kind == "output":
        return Text(words.clean(line.text), look.INK, no_wrap=True)
    return Text(line.text, look.AMBER if line.kind == "warning" else look.BLUE)
