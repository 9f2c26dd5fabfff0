"""What the keys do, and what the words and marks mean."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tui import look, words
from tui.actions import ACTIONS
from tui.panes.chart import MARKS, colour
from tui.screens.ask import key_line
from tui.screens.page import Page

MOVING = (
    ("1-6, tab", "go to a pane; the arrows, page up and down, home and end move in it"),
    ("enter", "in the table: the experiment's own page; elsewhere: the proposal that waits for you"),
    ("o, O", "in the table: sort by the next column, the other way round; in the agent's pane: unfold its tools"),
    ("escape", "end the search or the filter of a pane; leave a page or a dialog"),
    ("Ctrl+P", "every action by name"),
)
WORDS = (
    ("experiment", "one proposed change and its fate, numbered from 0, the baseline"),
    ("incumbent", "the best kept so far; the branch stands on it, and new proposals start from it"),
    ("gap", "how much lower the running trial's loss is than the incumbent's was at the same share of its budget"),
    ("idle", "the share of the time since the study began in which no trial held the device"),
    ("σ", "how much a value, or a difference, moves by luck; ×4: the mean of four seeds"),
    ("RUNNING", "the study goes on by itself"),
    ("PAUSED", "it waits for you, or for what its header says"),
    ("STEP", "it waits after each stage, until s"),
    ("STOPPED", "the engine has ended; the header says why"),
)
VERDICTS = {
    "keep": "better than the incumbent, which it replaces",
    "discard": "measured, and not better",
    "crash": "no measurement; it stands at the chart's worse edge",
    "reject": "a person's no",
}
AUDITS = {
    "green": "nothing against the score",
    "amber": "something a person should look at; the experiment's page has it",
    "red": "the score does not count",
}


class Help(Page):
    def on_mount(self) -> None:
        texts: list[RenderableType] = [
            Text("keys", f"bold {look.BLUE}"),
            *_pairs([(action.shown, action.does) for action in ACTIONS if action.name != "next_pane"]),
            *_pairs(MOVING),
            Text(),
        ]
        texts += [Text("words", f"bold {look.BLUE}"), *_pairs(WORDS), Text()]
        texts.append(Text("verdicts, and their marks in the chart", f"bold {look.BLUE}"))
        for verdict, mark in reversed(MARKS.items()):
            texts.append(
                Text.assemble(
                    (f"  {mark} ", colour(verdict)), (f"{verdict:<10}", look.INK), (VERDICTS[verdict], look.FAINT)
                )
            )
        texts += [Text(), Text("audits: what code that the agent cannot touch found", f"bold {look.BLUE}")]
        for found, mark in words.MARKS.items():
            texts.append(
                Text.assemble(
                    (f"  {mark} ", look.audit(found)), (f"{found:<10}", look.INK), (AUDITS[found], look.FAINT)
                )
            )
        self.fill("help", texts, key_line(("up/down", "scroll"), ("escape", "back")))


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[RenderableType]:
    grid = Table.grid()
    for name, said in pairs:
        grid.add_row(Text(f"  {name:<12}", f"bold {look.INK}"), Text(said, look.FAINT))
    return [grid]
