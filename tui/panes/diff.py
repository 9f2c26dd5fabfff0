"""The diff of the experiment at hand: what it changes in numbers first, then line by line."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult

from loop.events import Caution, Change
from tui import diffs, look, words
from tui.panes.lines import Lines
from tui.panes.pane import LinesPane, Words
from tui.view import Topic, View

CONSTANTS_SHOWN = 2


class DiffPane(LinesPane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("diff", "state"))
    number = 2
    label = "diff"

    DEFAULT_CSS = """
    DiffPane #summary { max-height: 5; padding-bottom: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    DiffPane #summary.-empty { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[int, str, tuple[Caution, ...], int] | None = None
        self._hunks: list[int] = []

    def compose(self) -> ComposeResult:
        yield Words(id="summary", classes="-empty")
        yield Lines(follow=False)

    def show(self, view: View) -> None:
        experiment = view.shown
        number = -1 if experiment is None else experiment.number
        diff = view.draft.diff if view.draft else ""
        changes = experiment.changes if experiment else ()
        cautions = experiment.cautions if experiment else ()
        width = self.content_size.width
        drawing = (number, diff, cautions, width)
        if not diff:
            self._hunks = []
            self.target.set([Text(_awaited(view), look.FAINT)])
        elif drawing != self._drawn:
            # The diff grows, and is told before what is to be looked at in it; who reads it stays where he is.
            stay = self._drawn is not None and self._drawn[0] == number
            texts, self._hunks = diffs.drawn(diff, cautions, width=width)
            self.target.set(texts, stay=stay)
        self._drawn = drawing
        count = f" · {len(self._hunks)} hunks, n/N" if len(self._hunks) > 1 else ""
        if diff and experiment is not None and experiment.stage == "proposing":
            count += " · being written"
        self.entitle(self.label if number < 0 else f"diff · {words.name(number)}{count}")
        pinned = self.query_one("#summary", Words)
        pinned.set_class(not diff, "-empty")
        if diff:
            pinned.say(summary(diff, changes, cautions), layout=True)

    def on_resize(self, event: events.Resize) -> None:
        self.stale = True

    def restyle(self) -> None:
        super().restyle()
        self._drawn = None

    def copied(self, view: View) -> tuple[str, str]:
        return (view.diff.diff if view.diff else ""), "the diff"

    def step_to(self, direction: int) -> str:
        if self.needle:
            return super().step_to(direction)
        if not self._hunks:
            return "there is no diff to step through"
        here = self.target.first_block()
        later = [hunk for hunk in self._hunks if hunk > here]
        before = [hunk for hunk in self._hunks if hunk < here]
        if direction > 0 and later:
            self.target.show_block(later[0])
        elif direction < 0 and before:
            self.target.show_block(before[-1])
        else:
            return "that is the last hunk" if direction > 0 else "that is the first hunk"
        return ""


def _awaited(view: View) -> str:
    experiment = view.shown
    if experiment is None or experiment.number == 0:
        return "the agent's first change will stand here"
    if experiment.stage == "proposing":
        return "the proposal's change will stand here"
    return "this experiment has no diff"


def summary(diff: str, changes: tuple[Change, ...], cautions: tuple[Caution, ...] = ()) -> Text:
    """`train.py +1 -1`, the lines to look at twice, and the constants that move as `old -> new`, the first at least."""
    found = diffs.extent(diff)
    text = Text()
    text.append(", ".join(found.files), look.INK)
    text.append(f"  +{found.added}", look.GREEN)
    text.append(f" -{found.removed}", look.RED)
    if cautions:
        text.append(f"\n! {diffs.cautioned(cautions)}", f"bold {look.AMBER}")
    for change in changes[:CONSTANTS_SHOWN]:
        text.append(f"\n{words.one_line(change.name)}  ", f"bold {look.INK}")
        text.append(f"{words.one_line(change.old)} -> ", look.FAINT)
        text.append(words.one_line(change.new), f"bold {look.AMBER}")
    if len(changes) > CONSTANTS_SHOWN:
        text.append(f"  and {len(changes) - CONSTANTS_SHOWN} more", look.FAINT)
    return text
