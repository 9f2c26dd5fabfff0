"""The agent: its hypothesis and the effect it expects on top, and below them what it thinks and says, as it comes."""

from __future__ import annotations

import re
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult

from loop.state import Experiment
from tui import look, words
from tui.panes.lines import Lines
from tui.panes.pane import Pane, Words
from tui.view import WORDS_KEPT, Line, Topic, View

_MARKS = re.compile(r"\*\*(?P<bold>[^*\n]+)\*\*|`(?P<code>[^`\n]+)`")
_HEADING = re.compile(r"^#{1,6}\s+")
HYPOTHESIS_AT_MOST = 240
"""Characters of the hypothesis in the pinned lines; the experiment's own page has it whole."""


class AgentPane(Pane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("words", "state"))
    number = 1
    label = "agent"

    DEFAULT_CSS = """
    AgentPane #hypothesis { max-height: 3; }
    AgentPane #expected { height: 1; margin-bottom: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    AgentPane .-empty { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._place = 0
        self._epoch = -1

    def compose(self) -> ComposeResult:
        yield Words(id="hypothesis", classes="-empty")
        yield Words(id="expected", classes="-empty")
        yield Lines(wrap=True, keep=WORDS_KEPT)

    @property
    def target(self) -> Lines:
        return self.query_one(Lines)

    def show(self, view: View) -> None:
        self._pin(view.shown, view)
        lines = self.target
        if view.words.epoch != self._epoch or not self._place:
            self._place, self._epoch = 0, view.words.epoch
            lines.set([])
        # The last line seen may have grown since.
        fresh = view.words.since(max(0, self._place - 1))
        if not fresh:
            lines.set([Text(_awaited(view), look.FAINT)])
            return
        lines.write([styled(line) for line in fresh], replacing=1 if self._place else 0)
        self._place = view.words.end

    def _pin(self, experiment: Experiment | None, view: View) -> None:
        hypothesis, expected = self.query_one("#hypothesis", Words), self.query_one("#expected", Words)
        known = experiment is not None and bool(experiment.hypothesis)
        hypothesis.set_class(not known, "-empty")
        expected.set_class(not known, "-empty")
        if experiment is None:
            self.entitle(self.label)
            return
        self.entitle(f"agent {words.one_line(view.state.agent)} · {words.name(experiment.number)}")
        if known:
            said = shorten(words.one_line(experiment.hypothesis), HYPOTHESIS_AT_MOST)
            hypothesis.say(Text(said, f"bold {look.INK}"), layout=True)
            effect = Text()
            if experiment.expected_effect:
                effect.append("expected  ", look.FAINT).append(words.one_line(experiment.expected_effect), look.INK)
            expected.say(effect)


def _awaited(view: View) -> str:
    if not view.state.experiments:
        return "the baseline is measured first; then the agent's reasoning streams here"
    return "the agent's reasoning streams here while it proposes"


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def styled(line: Line) -> Text:
    """A line of the agent's, in the few marks of Markdown that it takes to read it well."""
    if line.kind == "turn":
        return Text(f"── {line.text} " + "─" * 12, look.FAINT)
    said = words.clean(line.text)
    if line.kind == "tool":
        return Text.assemble(("> ", look.VIOLET), (said, look.VIOLET))
    if line.kind == "status":
        return Text(said, f"italic {look.FAINT}")
    base = look.FAINT if line.kind == "thought" else look.INK
    if heading := _HEADING.match(said):
        return Text(said[heading.end() :], f"bold {look.BLUE}")
    text = Text(style=base)
    at = 0
    for mark in _MARKS.finditer(said):
        text.append(said[at : mark.start()])
        text.append(mark["bold"] or mark["code"], "bold" if mark["bold"] else look.AMBER)
        at = mark.end()
    text.append(said[at:])
    return text
