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

Fetch = Callable[[int, Artifact], Awaitable[str | None]]
"""Gives a file's text, "" where there is none yet, None where no engine answers."""

LOG_LINES = 200
LOOK_AGAIN = 1.0
"""Seconds between two looks at whether the experiment has moved on."""


class ExperimentPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "go(-1)", show=False, priority=True),
        Binding("right", "go(1)", show=False, priority=True),
    ]

    def __init__(self, number: int, *, state: Callable[[], StudyState], fetch: Fetch) -> None:
        super().__init__()
        self._number, self._state, self._fetch = number, state, fetch
        self._shown: Experiment | None = None

    def on_mount(self) -> None:
        self._load()
        self.set_interval(LOOK_AGAIN, self._load)

    def action_go(self, direction: int) -> None:
        self._number = max(0, min(len(self._state().experiments) - 1, self._number + direction))
        self._load()

    def _load(self) -> None:
        experiments = self._state().experiments
        if self._number < len(experiments) and experiments[self._number] != self._shown:
            stay = self._shown is not None and self._shown.number == self._number
            self._shown = experiments[self._number]
            self.run_worker(self._fill(self._shown, stay=stay), group="page", exclusive=True)

    async def _fill(self, experiment: Experiment, *, stay: bool) -> None:
        number = experiment.number
        keys = key_line(("up/down", "scroll"), ("left/right", "experiment before/after"), ("escape", "back"))
        title = f"experiment {words.name(number)} · {words.status(experiment)}"
        state = self._state()
        texts = fact_lines(experiment, state)
        if not stay:
            self.fill(title, texts, keys)
        diff, reasoning, log = [await self._fetch(number, artifact) for artifact in ("diff", "reasoning", "log")]
        if diff is None or reasoning is None or log is None:
            where = f".labtop/{words.one_line(state.tag)}/experiments/{words.name(number)}/"
            said = f"no engine answers; diff, reasoning and log are in {where}"
            self.fill(title, [*texts, Text(), Text(said, look.AMBER)], keys, stay=stay)
            return
        texts += [*_section("diff"), *(diffs.drawn(diff) or [_none("it changes nothing")])]
        spoken = [styled(Line("text", line)) for line in reasoning.splitlines()]
        texts += [*_section("reasoning"), *(spoken or [_none("nothing was said")])]
        printed = [Text(words.clean(line), look.INK) for line in log.splitlines() if line.strip()][-LOG_LINES:]
        texts += [*_section("end of the log"), *(printed or [_none("nothing was printed")])]
        self.fill(title, texts, keys, stay=stay)


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
