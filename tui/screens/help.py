"""What the keys do, and what the words and marks mean."""

from __future__ import annotations

from rich.text import Text

from tui import look, words
from tui.panes.chart import MARKS
from tui.screens.ask import key_line
from tui.screens.page import Page

KEYS = (
    ("p", "pause: a training waits at its next step and its budget clock stops; again: resume"),
    ("s", "single step: propose, then wait; train, then wait; judge, then wait"),
    ("x", "reject the experiment under way: its training ends, the reason goes to the agent"),
    ("k", "keep the experiment under the table's cursor by hand: the branch moves onto it"),
    ("m", "a message to the agent, for its next briefing"),
    ("e", "edit program.md; the agent reads it in its next briefing"),
    ("v", "the chart: the whole study, or this run's loss against the incumbent's"),
    ("z", "the pane in focus alone on the screen; again: all six"),
    ("1-6, tab", "go to a pane; the arrows, page up and down, home and end move in it"),
    ("enter", "in the table: the experiment's own page, with its diff, reasoning and log"),
    ("q, ctrl+c", "detach: the view closes, the engine goes on"),
    ("Q", "stop the engine, now or after the running experiment"),
)
WORDS = (
    ("experiment", "one proposed change and its fate, numbered from 0, the baseline"),
    ("incumbent", "the best kept so far; the branch stands on it, and new proposals start from it"),
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
        texts = [Text("keys", f"bold {look.BLUE}"), *_pairs(KEYS), Text()]
        texts += [Text("words", f"bold {look.BLUE}"), *_pairs(WORDS), Text()]
        texts.append(Text("verdicts, and their marks in the chart", f"bold {look.BLUE}"))
        for verdict, (mark, style) in reversed(MARKS.items()):
            texts.append(
                Text.assemble((f"  {mark} ", style), (f"{verdict:<10}", look.INK), (VERDICTS[verdict], look.FAINT))
            )
        texts += [Text(), Text("audits: what code that the agent cannot touch found", f"bold {look.BLUE}")]
        for colour, mark in words.MARKS.items():
            texts.append(
                Text.assemble(
                    (f"  {mark} ", look.AUDIT_STYLES[colour]), (f"{colour:<10}", look.INK), (AUDITS[colour], look.FAINT)
                )
            )
        self.fill("help", texts, key_line(("up/down", "scroll"), ("escape", "back")))


def _pairs(pairs: tuple[tuple[str, str], ...]) -> list[Text]:
    return [Text.assemble((f"  {name:<12}", f"bold {look.INK}"), (said, look.FAINT)) for name, said in pairs]
