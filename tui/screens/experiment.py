"""One experiment's page: what it was to show, its numbers, its diff, the agent's reasoning and the end of its log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from loop.remote.wire import Artifact
from loop.state import Experiment, StudyState
from tui import diffs, look, words
from tui.panes.agent import styled
from tui.screens.ask import key_line
from tui.screens.page import Page
from tui.view import Line

Fetch = Callable[[int, Artifact], Awaitable[str]]

LOG_LINES = 200


class ExperimentPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "go(-1)", show=False, priority=True),
        Binding("right", "go(1)", show=False, priority=True),
    ]

    def __init__(self, number: int, *, state: Callable[[], StudyState], fetch: Fetch) -> None:
        super().__init__()
        self._number, self._state, self._fetch = number, state, fetch

    def on_mount(self) -> None:
        self._load()

    def action_go(self, direction: int) -> None:
        self._number = max(0, min(len(self._state().experiments) - 1, self._number + direction))
        self._load()

    def _load(self) -> None:
        self.run_worker(self._fill(self._number), group="page", exclusive=True)

    async def _fill(self, number: int) -> None:
        experiment = self._state().experiments[number]
        keys = key_line(("up/down", "scroll"), ("left/right", "experiment before/after"), ("escape", "back"))
        title = f"experiment {words.name(number)} · {words.status(experiment)}"
        facts = fact_lines(experiment, self._state())
        self.fill(title, facts, keys)
        diff, reasoning, log = [await self._fetch(number, artifact) for artifact in ("diff", "reasoning", "log")]
        texts = [*facts, *_section("diff"), *(diffs.drawn(diff) or [_none("it changes nothing")])]
        said = [styled(Line("text", line)) for line in reasoning.splitlines()]
        texts += [*_section("reasoning"), *(said or [_none("nothing was said")])]
        printed = [Text(words.clean(line), look.INK) for line in log.splitlines() if line.strip()][-LOG_LINES:]
        texts += [*_section("end of the log"), *(printed or [_none("nothing was printed")])]
        self.fill(title, texts, keys)


def fact_lines(experiment: Experiment, state: StudyState) -> list[Text]:
    """What the journal knows of an experiment."""
    facts = [
        ("hypothesis", words.one_line(experiment.hypothesis)),
        ("expected", words.one_line(experiment.expected_effect)),
        ("changes", words.what(experiment) if experiment.changes else ""),
        ("verdict", _verdict(experiment)),
        (words.one_line(state.metric), _measured(experiment)),
        ("commit", f"{(experiment.commit or '')[:12]} on {experiment.base[:12]}" if experiment.commit else ""),
        ("kept at", f"refs/{state.branch}/{words.name(experiment.number)}" if experiment.commit else ""),
        ("agent", f"{words.one_line(experiment.agent)}, program.md {experiment.spec}"),
    ]
    for trial in experiment.trials:
        how = trial.outcome or "running"
        why = f": {words.one_line(trial.reason)}" if trial.reason else ""
        took = f", {words.duration(trial.wall_seconds)}" if trial.wall_seconds else ""
        facts.append((f"trial {trial.trial}", f"{how}{why}{took}, {trial.device}, seed {trial.seed}"))
    facts += [("note", words.one_line(note)) for note in experiment.notes]
    return [Text.assemble((f"{name:<12}", look.FAINT), (said, look.INK)) for name, said in facts if said]


def _verdict(experiment: Experiment) -> str:
    if experiment.verdict is None:
        return ""
    return f"{experiment.verdict} by the {experiment.by}: {words.one_line(experiment.reason)}"


def _measured(experiment: Experiment) -> str:
    if experiment.value is None:
        return ""
    against = "" if experiment.delta is None else f" ({experiment.delta:+.6f} against the incumbent of that time)"
    return f"{experiment.value:.6f}{against}"


def _section(title: str) -> list[Text]:
    return [Text(), Text(f"── {title} " + "─" * 40, look.BLUE)]


def _none(said: str) -> Text:
    return Text(said, look.FAINT)
