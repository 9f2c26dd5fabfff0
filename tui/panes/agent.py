"""The agent: its hypothesis and the effect it expects on top, and below them what it thinks and says, as it comes."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from loop.events import DraftDiff
from loop.state import Experiment
from tui import look, prose, words
from tui.panes.lines import Lines
from tui.panes.pane import LinesPane, Words
from tui.view import WORDS_KEPT, Topic, View

HYPOTHESIS_AT_MOST = 240
"""Characters of the hypothesis in the pinned lines; the experiment's own page has it whole."""


class AgentPane(LinesPane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("words", "diff", "state"))
    number = 1
    label = "agent"

    DEFAULT_CSS = """
    AgentPane #hypothesis { max-height: 3; }
    AgentPane #expected { height: 1; margin-bottom: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    AgentPane .-empty { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("o", "fold", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._folded = True
        self._begin()

    def _begin(self) -> None:
        self._place = 0
        """Of the first line of the block that can still grow."""
        self._open = 0
        """Into how many pieces that one is drawn."""
        self._seen: tuple[int, int, int] = (-1, 0, 0)

    def compose(self) -> ComposeResult:
        yield Words(id="hypothesis", classes="-empty")
        yield Words(id="expected", classes="-empty")
        yield Lines(wrap=True, keep=WORDS_KEPT)

    def show(self, view: View) -> None:
        self._pin(view.shown, view)
        said, lines = view.words, self.target
        if (said.epoch, said.end, said.pieces) == self._seen:
            return
        if said.epoch != self._seen[0] or not self._place + self._open:
            self._begin()
            lines.set([])
        self._seen = said.epoch, said.end, said.pieces
        blocks = prose.blocks(said.since(self._place))
        if not blocks:
            lines.set([Text(_awaited(view), look.FAINT)])
            return
        drawn = [prose.drawn(block, folded=self._folded) for block in blocks]
        lines.write((piece for pieces in drawn for piece in pieces), replacing=self._open)
        self._place, self._open = said.end - len(blocks[-1]), len(drawn[-1])

    def restyle(self) -> None:
        super().restyle()
        self._begin()

    def action_fold(self) -> None:
        """Show what the agent's tools said, or fold it away."""
        self._folded = not self._folded
        self._begin()
        self.stale = True

    def copied(self, view: View) -> tuple[str, str]:
        return "\n".join(line.text for line in view.words.since(0)), "the agent's words"

    def _pin(self, experiment: Experiment | None, view: View) -> None:
        hypothesis, expected = self.query_one("#hypothesis", Words), self.query_one("#expected", Words)
        said, effect = map(words.one_line, stated(experiment, view.draft))
        known = bool(said)
        hypothesis.set_class(not known, "-empty")
        expected.set_class(not known, "-empty")
        if experiment is None:
            self.entitle(self.label)
            return
        self.entitle(f"agent {words.one_line(view.state.agent)} · {words.name(experiment.number)}")
        if known:
            hypothesis.say(Text(shorten(said, HYPOTHESIS_AT_MOST), f"bold {look.INK}"), layout=True)
            text = Text()
            if effect:
                text.append("expected  ", look.FAINT).append(effect, look.INK)
            expected.say(text)


def stated(experiment: Experiment | None, draft: DraftDiff | None) -> tuple[str, str]:
    """Hypothesis and expected effect: those of the proposal, or, while it is written, what is there of them."""
    said = draft if draft is not None and experiment is not None and not experiment.hypothesis else experiment
    return ("", "") if said is None else (said.hypothesis, said.expected_effect)


def _awaited(view: View) -> str:
    if not view.state.experiments:
        return "the baseline is measured first; then the agent's reasoning streams here"
    return "the agent's reasoning streams here while it proposes"


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
