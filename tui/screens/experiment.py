"""One experiment's page: what it was to show, its numbers, its curve, its diff, the agent's reasoning and its logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType

from loop import commands
from loop.state import Experiment, StudyState, Trial
from tui import diffs, look, prose, words
from tui.actions import Given
from tui.engine import Do, Fetch
from tui.panes.lines import Lines
from tui.screens.ask import Tell, key_line
from tui.screens.page import Page
from tui.view import View, steps_of

LOG_LINES = 200
LOOK_AGAIN = 1.0
"""Seconds between two looks at whether the experiment has moved on."""
CURVE = 5
"""Rows of the loss curve."""


class ExperimentPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "go(-1)", show=False, priority=True),
        Binding("right", "go(1)", show=False, priority=True),
        Binding("t", "trial", show=False),
        Binding("m", "note", show=False),
        Binding("a", "approve", show=False),
        Binding("x", "reject", show=False),
        Binding("e", "edit", show=False),
    ]

    def __init__(self, number: int, *, view: View, fetch: Fetch, do: Do, reject: Callable[[], None]) -> None:
        """`reject` asks for the reason and rejects the experiment under way."""
        super().__init__()
        self._number, self._view, self._fetch, self._do, self._reject = number, view, fetch, do, reject
        self._shown: tuple[Experiment, int, bool] | None = None
        self._trial = 0
        """Whose log is shown; 0: the latest one's."""
        self._diff = ""

    @property
    def _state(self) -> StudyState:
        return self._view.state

    @property
    def _waits(self) -> bool:
        waiting = self._state.awaiting
        return waiting is not None and waiting.number == self._number

    def on_mount(self) -> None:
        self._load()
        self.set_interval(LOOK_AGAIN, self._load)

    def action_go(self, direction: int) -> None:
        self._number = max(0, min(len(self._state.experiments) - 1, self._number + direction))
        self._trial = 0
        self._load()

    def action_trial(self) -> None:
        """Show the log and the audit of the trial before, or, after the first, of the latest."""
        count = len(self._state.experiments[self._number].trials)
        if count > 1:
            self._trial = ((self._trial or count) - 2) % count + 1
            self._load()

    def action_note(self) -> None:
        number = self._number

        def told(text: str | None) -> None:
            if text:
                self.post_message(Given(commands.Note(text=text, number=number)))

        self.app.push_screen(Tell(beside=words.name(number)), told)

    def action_approve(self) -> None:
        if self._waits:
            self.post_message(Given(commands.Approve(number=self._number)))
        else:
            self._refuse("waits for no approval")

    def action_reject(self) -> None:
        current = self._state.current
        if current is not None and current.number == self._number:
            self._reject()
        else:
            self._refuse("is not under way; only what is can be rejected")

    def action_edit(self) -> None:
        from tui.screens.patch import PatchEditor

        if self._waits and self._diff:
            self.app.push_screen(PatchEditor(self._number, self._diff, do=self._do))
        elif self._waits:
            self._refuse("has no patch here yet")
        else:
            self._refuse("waits for no approval; its patch can be edited only then (approve mode, a)")

    def _refuse(self, why: str) -> None:
        self.notify(f"{words.name(self._number)} {why}", severity="warning", markup=False)

    def _load(self) -> None:
        experiments = self._state.experiments
        if self._number >= len(experiments):
            return
        wanted = (experiments[self._number], self._trial, self._waits)
        if wanted != self._shown:
            stay = self._shown is not None and self._shown[0].number == self._number
            self._shown = wanted
            self.run_worker(self._fill(experiments[self._number], stay=stay), group="page", exclusive=True)

    def _keys(self, experiment: Experiment) -> Text:
        keys = [("a", "approve"), ("x", "reject"), ("e", "edit the patch")] if self._waits else []
        keys += [("left/right", "before/after"), ("m", "note")]
        keys += [("t", "another trial")] if len(experiment.trials) > 1 else []
        return key_line(*keys, ("escape", "back"))

    async def _fill(self, experiment: Experiment, *, stay: bool) -> None:
        number, state = experiment.number, self._state
        keys = self._keys(experiment)
        title = f"experiment {words.name(number)} · {words.status(experiment, state)}"
        blocks: list[RenderableType] = [*fact_lines(experiment, state)]
        if not stay:
            self.fill(title, blocks, keys)
        trial = self._trial or len(experiment.trials) or 1
        diff, reasoning = await self._fetch(number, "diff"), await self._fetch(number, "reasoning")
        log = await self._fetch(number, "log", trial=trial)
        audit = await self._fetch(number, "audit", trial=trial)
        metrics = await self._fetch(number, "metrics", trial=trial)
        if diff is None or reasoning is None or log is None or audit is None or metrics is None:
            where = f".labtop/{words.one_line(state.tag)}/experiments/{words.name(number)}/"
            said = f"no engine answers; diff, reasoning and log are in {where}"
            self.fill(title, [*blocks, Text(), Text(said, look.AMBER)], keys, stay=stay)
            return
        self._diff = diff
        lines = self.query_one(Lines)
        width = max(20, lines.content_size.width)
        of = f" of trial {trial}" if len(experiment.trials) > 1 else ""
        blocks += _curve(metrics, width, of)
        if diff and experiment.cautions:
            blocks += [Text(), Text(f"! {diffs.cautioned(experiment.cautions)}", f"bold {look.AMBER}")]
        texts = diffs.drawn(diff, experiment.cautions, width=width).texts
        blocks += [*_section("diff"), *(texts or [_none("it changes nothing")])]
        blocks += [*_section("reasoning"), *(prose.written(reasoning) or [_none("nothing was said")])]
        blocks += [*_section(f"end of the log{of}"), *(_printed(log) or [_none("nothing was printed")])]
        if audit.strip():
            blocks += [*_section(f"what the audit{of} printed"), *_printed(audit)]
        self.fill(title, blocks, keys, stay=stay)


def _printed(text: str) -> list[Text]:
    lines = (words.clean(line).rstrip() for line in text.splitlines())
    return [Text(line, look.INK) for line in lines if line][-LOG_LINES:]


def _curve(metrics: str, width: int, of: str) -> list[Text]:
    """The trial's loss over its steps, and the numbers it begins and ends with."""
    steps = steps_of(metrics)
    losses = [step.loss for step in steps]
    if len(losses) < 2:
        return []
    said = f"loss {losses[0]:.4f} -> {losses[-1]:.4f} over {steps[-1].step + 1} steps"
    rows = look.area(losses, width, CURVE)
    return [*_section(f"curve{of}"), *(Text(row, look.BLUE) for row in rows), Text(said, look.FAINT)]


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
        ("patch", "changed by a person" if experiment.amended else ""),
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
            text.stylize(look.audit(trial.colour), at, at + len(f"{mark} {colour}"))
        texts.append(text)
    for trial in experiment.trials:
        style = look.audit(trial.colour)
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
