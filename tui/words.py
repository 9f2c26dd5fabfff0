"""State in words: what a person reads in the header, the tables and the log. Pure functions, no widget."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from loop import events as ev
from loop.events import Colour, Record, Step
from loop.state import BASELINE, Experiment, StudyState, Trial, Usage
from loop.trials.output import clean as clean

NOTHING = "—"

STATUS = {
    "proposing": "proposing",
    "proposed": "proposed",
    "training": "training",
    "trained": "trained",
}
"""An experiment's status while it has no verdict."""

MARKS: dict[Colour, str] = {"green": "✓", "amber": "!", "red": "✗"}
"""An audit's colour where there are no colours."""

RATE_OVER = 20
"""So many of the latest experiments make the rate."""


def name(number: int) -> str:
    return f"{number:04d}"


def one_line(text: str) -> str:
    """Foreign text as one clean line."""
    return " ".join(clean(text).split())


def value(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.4f}"


def delta(number: float | None) -> str:
    return NOTHING if number is None else f"{number:+.4f}"


def spread(number: float) -> str:
    """A standard deviation, of which two digits are always there."""
    return f"{number:.4f}" if number >= 0.001 else f"{number:.1e}"


def sigmas(experiment: Experiment) -> str:
    """How many standard errors its delta is: `(5.8σ)`, from ten on `(12σ)`; "" where that is not known."""
    if experiment.delta is None or not experiment.sigma:
        return ""
    times = abs(experiment.delta) / experiment.sigma
    return f"({times:.1f}σ)" if times < 9.95 else f"({times:.0f}σ)" if times < 999 else "(≫σ)"


def duration(seconds: float) -> str:
    """`12 s`, `3:12` or `2:03:12`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def amount(number: float) -> str:
    """Three digits and a unit: `981`, `12.3 k`, `1.23 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            scaled = number / size
            return (
                f"{scaled:.2f}{unit}"
                if scaled < 10
                else f"{scaled:.1f}{unit}"
                if scaled < 100
                else f"{scaled:.0f}{unit}"
            )
    return f"{number:.0f}"


def gib(size: float) -> str:
    """Bytes as GiB, without the unit."""
    number = size / 1024**3
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def unit(metric: str) -> str:
    """What a difference of the metric is counted in."""
    return metric.removeprefix("val_") or "value"


def status(experiment: Experiment, state: StudyState) -> str:
    """The verdict, or how far the experiment is."""
    if experiment.verdict is not None:
        return experiment.verdict
    if state.awaiting is experiment:
        return "approve?"
    if experiment.stage == "training" and experiment.values and experiment.agent != BASELINE:
        return "confirming"
    if experiment.trial is not None and state.needs_audit(experiment.trial):
        return "auditing"
    return STATUS.get(experiment.stage, experiment.stage)


def what(experiment: Experiment) -> str:
    """What an experiment changes, as shortly as possible."""
    if experiment.agent == BASELINE:
        return "baseline"
    if experiment.changes:
        return ", ".join(f"{change.name} {change.old} -> {change.new}" for change in experiment.changes)
    return one_line(experiment.hypothesis) or "…"


def gain(state: StudyState) -> str | None:
    """How far the study has come, in the metric's unit and in percent of the baseline."""
    if state.gain is None or state.baseline is None or not state.baseline.value:
        return None
    share = 100 * state.gain / abs(state.baseline.value)
    return f"{state.gain:.4f} {unit(state.metric)} ({share:.2f} %)"


def noise(state: StudyState) -> str | None:
    """By how much two runs differ by luck; None before that is known."""
    noise = state.noise
    if not noise.freedom:
        return None
    if not noise.sigma:
        return f"none over {noise.freedom + 1} seeds: a script gives the same value on each"
    between = f", {spread(noise.paired)} between two scripts on one seed" if noise.paired_freedom else ""
    return f"σ {spread(noise.sigma)} over {noise.freedom + 1} seeds{between}"


def audits(state: StudyState) -> str | None:
    """How many trials the audits found green, amber and red; None where there was no audit."""
    found = Counter(trial.colour for experiment in state.experiments for trial in experiment.trials if trial.colour)
    return ", ".join(f"{found[colour]} {colour}" for colour in MARKS) if found else None


def rate(experiments: Iterable[Experiment]) -> float | None:
    """Experiments an hour over the latest ones; None before two are decided."""
    decided = [experiment for experiment in experiments if experiment.ended is not None][-RATE_OVER:]
    if len(decided) < 2 or decided[-1].ended is None:
        return None
    span = decided[-1].ended - decided[0].started
    return 3600 * len(decided) / span if span > 0 else None


def busy(state: StudyState) -> float:
    """Seconds for which trials that have ended held the device."""
    return sum(
        max(0.0, trial.ended - trial.started)
        for experiment in state.experiments
        for trial in experiment.trials
        if trial.ended is not None
    )


def idle(state: StudyState, busy: float, now: float) -> tuple[float, float] | None:
    """The share of time for which no trial held the device, and the seconds since the study began."""
    past = now - state.opened
    if not state.opened or past <= 0:
        return None
    trial = training(state)
    busy += max(0.0, now - trial.started) if trial else 0.0
    return max(0.0, 1 - busy / past), past


def ahead(gap: float, of: str = " of best") -> str:
    """`0.012 ahead of best`, or `behind best`."""
    return f"{abs(gap):.3f} " + (f"ahead{of}" if gap >= 0 else f"behind{of.removeprefix(' of')}")


def mode_word(state: StudyState, *, connected: bool) -> str:
    """The word that stands first in the header."""
    if state.mode == "stopped":
        return "STOPPED" if state.seq else "CONNECTING"
    if not connected:
        return "NO ENGINE"
    if state.mode == "running":
        return "RUNNING"
    return "STEP" if state.mode_reason == "single step" else "PAUSED"


def spent(experiment: Experiment, step: Step | None, now: float) -> float:
    """Seconds of its budget that the experiment's trial has used, as far as can be told from outside."""
    trial = experiment.trial
    if trial is None:
        return 0.0
    if step is not None and (step.number, step.trial) == (trial.number, trial.trial):
        return step.time if step.progress is None else step.progress * trial.budget
    return max(0.0, now - trial.started)


def share_spent(state: StudyState, step: Step | None) -> float | None:
    """How much of its budget the running trial has used, in 0..1; None where nothing trains or tells."""
    trial = training(state)
    if trial is None or step is None or (step.number, step.trial) != (trial.number, trial.trial):
        return None
    return step.progress if step.progress is not None else min(1.0, step.time / max(trial.budget, 1e-9))


def training(state: StudyState) -> Trial | None:
    """The trial that runs, of the experiment under way or of the incumbent."""
    trial = state.measuring.trial if state.measuring else None
    return trial if trial is not None and trial.outcome is None else None


def activity(state: StudyState, step: Step | None, now: float) -> str:
    """What the study is at, in words: `training 0042 · 12 s of 20 s`."""
    if not state.seq:
        return "waiting for the engine's first word"
    if state.mode == "stopped":
        return one_line(state.mode_reason) or "the engine has ended"
    reason = one_line(state.mode_reason) if state.mode == "paused" and state.mode_reason != "single step" else ""
    if reason:
        return reason
    if (doing := measuring(state)) is not None:
        return f"{doing}{_clock(state, step, now)}"
    current = state.current
    if (waiting := state.awaiting) is not None:
        return f"{name(waiting.number)} waits for your approval"
    if current is None:
        return "before the next proposal" if _held(state) else "between two experiments"
    title = "the baseline" if current.agent == BASELINE else name(current.number)
    match current.stage:
        case "proposing":
            return _proposing(state, title, now)
        case "proposed":
            return f"{title} is proposed, its training comes next"
        case "trained" if current.repairs and current.trial and current.trial.outcome == "crash":
            return f"{title} crashed, and is repaired"
        case _:
            return f"{title} is trained; its verdict, or one more seed, comes next"


def measuring(state: StudyState) -> str | None:
    """Which trial runs or waits for its audit, and what for: `confirming 0042, seed 3`; None where none does."""
    experiment = state.measuring
    if experiment is None or experiment.trial is None:
        return None
    baseline, kept = experiment.agent == BASELINE, experiment.verdict is not None
    title = "the baseline" if baseline and not kept else name(experiment.number)
    again = f", seed {experiment.trial.seed}" if experiment.values else ""
    if kept:
        title, again = f"{title}, the incumbent", ""
    if state.needs_audit(experiment.trial):
        return f"auditing {title}{again}"
    if kept:
        return f"re-measuring {title}"
    return f"{'measuring' if baseline else 'confirming' if again else 'training'} {title}{again}"


def _clock(state: StudyState, step: Step | None, now: float) -> str:
    """How far the trial that runs is, or for how long its audit runs."""
    experiment = state.measuring
    trial = experiment.trial if experiment else None
    if experiment is None or trial is None:
        return ""
    if trial.ended is not None:
        return f" · {duration(now - trial.ended)}"
    used = duration(spent(experiment, step, now))
    told = step is not None and (step.number, step.trial) == (trial.number, trial.trial)
    clock = f"{used} of {duration(trial.budget)}" if told else f"starting, {used}"
    if trial.paused:
        return f" waits at {clock}" if told else " waits"
    return f" · {clock}"


def _held(state: StudyState) -> bool:
    return state.mode == "paused" and not state.steps


def _proposing(state: StudyState, title: str, now: float) -> str:
    if state.asked:
        return f"{title} asks you to allow {one_line(state.asked)}"
    if not state.failures and not state.away:
        return f"proposing {title}"
    why = one_line(state.last_failure)
    if state.retry_at is not None and state.retry_at > now:
        return f"asks for {title} again in {duration(state.retry_at - now)} · {why}"
    return (
        f"proposing {title}, attempt {state.failures + 1} · {why}" if state.failures else f"proposing {title} · {why}"
    )


def happened(record: Record) -> str | None:
    """An event as a line of the log, or None where the panes show it well enough."""
    event = record.event
    match event:
        case ev.EngineStarted():
            said = f"engine started, pid {event.pid}"
        case ev.EngineStopped():
            said = f"engine ended: {event.reason}"
        case ev.SpecChanged():
            said = f"program.md version {event.version}"
        case ev.ProposalFailed():
            what = "waits for its agent" if event.away else "proposal failed"
            said = f"{name(event.number)} {what}: {event.reason}"
        case ev.RepairStarted():
            said = f"{name(event.number)} crashed; {event.agent} repairs it, attempt {event.attempt}"
        case ev.AgentUsed() if event.input + event.output:
            said = f"{name(event.number)} took {bill(Usage().plus(event))}"
        case ev.TrialStarted():
            again = f", trial {event.trial}" if event.trial > 1 else ""
            said = f"{name(event.number)} trains, seed {event.seed}{again}"
        case ev.TrialFinished() if event.outcome != "ok":
            said = f"{name(event.number)} trial {event.trial} {event.outcome}: {event.reason}"
        case ev.Audited():
            said = f"{name(event.number)} {audited(event)}"
        case ev.Decided():
            said = f"{name(event.number)} {event.verdict}: {event.reason}"
        case ev.Undone():
            said = f"{name(event.number)} verdict undone: {event.why}"
        case ev.Approved():
            said = f"{name(event.number)} approved"
        case ev.Permission(allowed=None):
            said = f"{name(event.number)} asks to be allowed {event.what}; answer with `labtop permit yes` or `no`"
        case ev.Permission():
            nobody = "" if event.by == "person" else ", since nobody answered"
            said = f"{name(event.number)} {'is' if event.allowed else 'is not'} allowed {event.what}{nobody}"
        case ev.Proposed() if event.by == "person":
            said = f"{name(event.number)} has a patch changed by the person"
        case ev.GateSet():
            said = "each proposal waits for approval" if event.on else "proposals train without approval"
        case ev.BreakpointSet():
            said = f"breakpoint: {event.condition}"
        case ev.BreakpointCleared():
            said = f"no longer a breakpoint: {event.condition}"
        case ev.Paused():
            said = f"paused by the {event.by}" + (f": {event.reason}" if event.reason else "")
        case ev.Resumed():
            said = "resumed"
        case ev.Noted():
            beside = "" if event.number is None else f" beside {name(event.number)}"
            said = f"note{beside}: {event.text}"
        case ev.Warned():
            said = f"warning: {event.text}"
        case _:
            return None
    return f"{clock(record.time)} {one_line(said)}"


def audited(event: ev.Audited) -> str:
    """An audit in one line: its colour, the value that it measured, and the first thing it found."""
    said = f"audited {event.colour}"
    if event.value is not None:
        said += f", {value(event.value)}"
    if event.colour == "red":
        said += ", which does not count" if event.value is not None else ", it does not count"
    first, *more = event.findings or ("",)
    return said + (f": {first}" if first else "") + (f" (and {len(more)} more)" if more else "")


def clock(moment: float) -> str:
    """The local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def bill(usage: Usage) -> str:
    """Tokens and cost: `12.3 k tokens, 0.042`, and of how many of them the cost is not known."""
    said = f"{amount(usage.tokens)} tokens"
    if usage.cost:
        said += f", cost {usage.cost:.3f}"
        if usage.unpriced:
            said += f" and that of {amount(usage.unpriced)} tokens unknown"
    return said


def edits(usage: Usage) -> str:
    """How often what an agent proposed could be run."""
    if usage.first_share is None or usage.usable_share is None:
        return NOTHING
    return f"{100 * usage.first_share:.0f} % at the first try, {100 * usage.usable_share:.0f} % after mending"


def farewell(state: StudyState, *, connected: bool) -> str:
    """What detaching leaves behind."""
    if connected and state.mode != "stopped" and state.engine_pid:
        return f"detached; the engine goes on, pid {state.engine_pid}; back to it: labtop attach --tag {state.tag}"
    if state.mode == "stopped" and state.mode_reason:
        return f"detached; the engine has ended: {one_line(state.mode_reason)}"
    return "detached; no engine runs"
