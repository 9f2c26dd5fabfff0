"""The diff of the experiment at hand: what it changes in numbers first, then line by line."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult

from loop.events import Change
from tui import diffs, look, words
from tui.panes.lines import Lines
from tui.panes.pane import Pane, Words
from tui.view import Topic, View

CONSTANTS_SHOWN = 2


class DiffPane(Pane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("diff", "state"))
    number = 2
    label = "diff"

    DEFAULT_CSS = """
    DiffPane #summary { max-height: 4; padding-bottom: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    DiffPane #summary.-empty { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[int, str] | None = None

    def compose(self) -> ComposeResult:
        yield Words(id="summary", classes="-empty")
        yield Lines(follow=False)

    @property
    def target(self) -> Lines:
        return self.query_one(Lines)

    def show(self, view: View) -> None:
        experiment = view.shown
        number = -1 if experiment is None else experiment.number
        diff = view.diff.diff if view.diff is not None and view.diff.number == number else ""
        lines = diffs.drawn(diff) if (number, diff) != self._drawn and diff else None
        if lines is not None:
            self.target.set(lines)
        elif not diff:
            self.target.set([Text(_awaited(view), look.FAINT)])
        self._drawn = (number, diff)
        self.entitle(self.label if number < 0 else f"diff · {words.name(number)}")
        pinned = self.query_one("#summary", Words)
        pinned.set_class(not diff, "-empty")
        if diff:
            pinned.say(summary(diff, experiment.changes if experiment else ()), layout=True)


def _awaited(view: View) -> str:
    experiment = view.shown
    if experiment is None or experiment.number == 0:
        return "the agent's first change will stand here"
    if experiment.stage == "proposing":
        return "the proposal's change will stand here"
    return "this experiment has no diff"


def summary(diff: str, changes: tuple[Change, ...]) -> Text:
    """`train.py +1 -1`, and every constant that moves as `old -> new`, the first ones at least."""
    found = diffs.extent(diff)
    text = Text()
    text.append(", ".join(found.files), look.INK)
    text.append(f"  +{found.added}", look.GREEN)
    text.append(f" -{found.removed}", look.RED)
    for change in changes[:CONSTANTS_SHOWN]:
        text.append(f"\n{words.one_line(change.name)}  ", f"bold {look.INK}")
        text.append(f"{words.one_line(change.old)} -> ", look.FAINT)
        text.append(words.one_line(change.new), f"bold {look.AMBER}")
    if len(changes) > CONSTANTS_SHOWN:
        text.append(f"  and {len(changes) - CONSTANTS_SHOWN} more", look.FAINT)
    return text
