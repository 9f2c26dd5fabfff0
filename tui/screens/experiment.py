"""One experiment's page: what it was to show, its numbers, its diff, the agent's reasoning and the end of its log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from loop.remote.wire import Artifact
from loop.state import Experiment, StudyState, Trial
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
        state = self._state()
        keys = key_line(("up/down", "scroll"), ("left/right", "experiment before/after"), ("escape", "back"))
        title = f"experiment {words.name(number)} · {words.status(experiment, state)}"
        texts = fact_lines(experiment, state)
        if not stay:
            self.fill(title, texts, keys)
        diff, reasoning, log = [await self._fetch(number, artifact) for artifact in ("diff", "reasoning", "log")]
        if diff is None or reasoning is None or log is None:
            where = f".labtop/{words.one_line(state.tag)}/experiments/{words.name(number)}/"
            said = f"no engine answers; diff, reasoning and log are in {where}"
            self.fill(title, [*texts, Text(), Text(said, look.AMBER)], keys, stay=stay)
            return
        if diff and experiment.cautions:
            texts += [Text(), Text(f"! {diffs.cautioned(experiment.cautions)}", f"bold {look.AMBER}")]
        texts += [*_section("diff"), *(diffs.drawn(diff, experiment.cautions) or [_none("it changes nothing")])]
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
        ("delta", _delta(experiment)),
        ("interval", _interval(experiment)),
        ("commit", f"{(experiment.commit or '')[:12]} on {experiment.base[:12]}" if experiment.commit else ""),
        ("kept at", f"refs/{state.branch}/{words.name(experiment.number)}" if experiment.commit else ""),
        ("agent", f"{words.one_line(experiment.agent)}, program.md {experiment.spec}"),
    ]
    facts += [("note", words.one_line(note)) for note in experiment.notes]
    texts = [Text.assemble((f"{name:<12}", look.FAINT), (said, look.INK)) for name, said in facts if said]
    return texts + trial_lines(experiment, state)


def trial_lines(experiment: Experiment, state: StudyState) -> list[Text]:
    """A table of the experiment's trials, and all that their audits found."""
    if not experiment.trials:
        return []
    texts = _section(f"trials on {words.one_line(experiment.trials[-1].device)}")
    texts.append(Text(_row("trial", "seed", "value", "  audit", "holdout", "CPU", "wall", "outcome"), look.FAINT))
    for trial in experiment.trials:
        colour = trial.colour or ("due" if state.needs_audit(trial) else words.NOTHING)
        mark = words.MARKS[trial.colour] if trial.colour else " "
        text = Text(
            _row(
                str(trial.trial),
                str(trial.seed),
                words.NOTHING if trial.value is None else f"{trial.value:.6f}",
                f"{mark} {colour}",
                words.NOTHING if trial.holdout is None else f"{trial.holdout:.6f}",
                f"{trial.cpu_seconds:.1f} s" if trial.cpu_seconds else words.NOTHING,
                words.NOTHING if trial.outcome is None else words.duration(trial.wall_seconds),
                _outcome(trial, experiment),
            ),
            look.INK if trial.counts else look.FAINT,
        )
        if trial.colour:
            at = text.plain.index(mark)
            text.stylize(look.AUDIT_STYLES[trial.colour], at, at + len(f"{mark} {colour}"))
        texts.append(text)
    for trial in experiment.trials:
        style = look.AUDIT_STYLES[trial.colour] if trial.colour else look.INK
        mark = words.MARKS[trial.colour] if trial.colour else " "
        for finding in trial.findings:
            found = words.one_line(finding)
            texts.append(Text.assemble((f"{mark} trial {trial.trial}  ", style), (found, look.INK)))
    return texts


def _row(trial: str, seed: str, value: str, audit: str, holdout: str, cpu: str, wall: str, outcome: str) -> str:
    return f"{trial:<7}{seed:>5}{value:>12}  {audit:<9}{holdout:>10}{cpu:>10}{wall:>9}  {outcome}"


def _outcome(trial: Trial, experiment: Experiment) -> str:
    """How a trial ended, and why it does not count where it does not."""
    why = words.one_line(trial.reason)
    said = f"{trial.outcome or 'running'}{': ' if why else ''}{why}"
    if trial.disturbed:
        said += ", frozen by a pause"
    if trial.trial < experiment.counted_from:
        said += ", before the machine changed"
    return said


def _verdict(experiment: Experiment) -> str:
    if experiment.verdict is None:
        return ""
    return f"{experiment.verdict} by the {experiment.by}: {words.one_line(experiment.reason)}"


def _measured(experiment: Experiment) -> str:
    value, count = experiment.mean if experiment.verdict is None else experiment.value, len(experiment.values)
    if value is None:
        return ""
    return f"{value:.6f}" + (f", the mean of {count} trials" if count > 1 else "")


def _delta(experiment: Experiment) -> str:
    """Against the incumbent, with what is known of its luck."""
    if experiment.delta is None:
        return ""
    said = f"{experiment.delta:+.6f}"
    if experiment.sigma:
        said += f" ± {experiment.sigma:.6f} {words.sigmas(experiment)}"
    return f"{said} against the incumbent of that time"


def _interval(experiment: Experiment) -> str:
    if experiment.low is None or experiment.high is None or not experiment.sigma:
        return ""
    return f"{experiment.low:+.6f} to {experiment.high:+.6f}, with nine chances in ten"


def _section(title: str) -> list[Text]:
    return [Text(), Text(f"── {title} " + "─" * 40, look.BLUE)]


def _none(said: str) -> Text:
    return Text(said, look.FAINT)
