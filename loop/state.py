"""State is the fold of the journal: no I/O, no clock, the same records give the same state anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from statistics import fmean
from typing import Literal

import msgspec
from msgspec.structs import replace

from loop import events as ev
from loop.events import COLOURS, Author, Caution, Change, Colour, Outcome, Record, Verdict
from loop.noise import Noise, estimate

Stage = Literal["proposing", "proposed", "training", "trained", "decided"]
"""How far an experiment has come. Before each of proposing, training and deciding a person may hold it."""

Mode = Literal["running", "paused", "stopped"]

WARNINGS_KEPT = 50

BASELINE = "baseline"
"""The agent's name of an experiment that measures the script as it stands."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What turns of an agent came to in all, and how often what they proposed could be run. Tokens, seconds."""

    turns: int = 0
    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    cost: float = 0.0
    unpriced: int = 0
    """Tokens of which the cost is not known."""
    seconds: float = 0.0
    first: int = 0
    """Turns whose first answer could be run,"""
    mended: int = 0
    """whose later one could,"""
    unusable: int = 0
    """and whose none could. A turn in which the agent never answered is none of them."""

    @property
    def tokens(self) -> int:
        return self.input + self.output

    @property
    def first_share(self) -> float | None:
        """Of the turns with an answer, those where the first could be run; None where there was none."""
        return self.first / answered if (answered := self.first + self.mended + self.unusable) else None

    @property
    def usable_share(self) -> float | None:
        """The same of the first or a later one."""
        return (self.first + self.mended) / answered if (answered := self.first + self.mended + self.unusable) else None

    def plus(self, event: ev.AgentUsed) -> Usage:
        """With one more turn."""
        return Usage(
            turns=self.turns + 1,
            requests=self.requests + event.requests,
            input=self.input + event.input,
            cached=self.cached + event.cached,
            output=self.output + event.output,
            cost=self.cost + event.cost,
            unpriced=self.unpriced + event.unpriced,
            seconds=self.seconds + event.seconds,
            first=self.first + (event.usable is True and not event.mends),
            mended=self.mended + (event.usable is True and event.mends > 0),
            unusable=self.unusable + (event.usable is False),
        )


# The garbage collector need not look at what holds no cycle: a study of months has tens of thousands of these.
class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One execution of the training command. Times are seconds since the epoch."""

    number: int
    trial: int
    device: str
    seed: int
    budget: float
    sandbox: str = ""
    started: float
    ended: float | None = None
    outcome: Outcome | None = None
    value: float | None = None
    """The metric: as the audit measured it, or, in a study that has none, as the script printed it."""
    claimed: float | None = None
    """What the script printed in a study that audits."""
    colour: Colour | None = None
    findings: tuple[str, ...] = ()
    holdout: float | None = None
    summary: dict[str, float] = {}
    reason: str = ""
    exit_code: int | None = None
    wall_seconds: float = 0.0
    paused_seconds: float = 0.0
    cpu_seconds: float = 0.0
    paused: bool = False
    disturbed: bool = False
    """Frozen from outside at least once, so that its clock cannot be compared with others'."""

    @property
    def counts(self) -> bool:
        """Whether its value may stand for its script."""
        return self.outcome == "ok" and self.value is not None and not self.disturbed and self.colour != "red"


class Experiment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One proposed change and its fate. Number 0 is the baseline: the unchanged script."""

    number: int
    stage: Stage
    base: str
    agent: str
    spec: int
    started: float
    ended: float | None = None
    commit: str | None = None
    hypothesis: str = ""
    expected_effect: str = ""
    changes: tuple[Change, ...] = ()
    added: int = 0
    removed: int = 0
    fingerprint: str = ""
    patch: str = ""
    """The fingerprint of its patch."""
    cautions: tuple[Caution, ...] = ()
    used: Usage = Usage()
    """What the agent's turns for it came to."""
    repairs: int = 0
    """How often the agent was asked to mend what crashed."""
    amended: bool = False
    """A person changed the agent's patch."""
    approved: bool = False
    trials: tuple[Trial, ...] = ()
    counted_from: int = 1
    """Earlier trials do not count: the machine or the code has changed since, or the verdict on them was undone."""
    verdict: Verdict | None = None
    reason: str = ""
    by: Author = "judge"
    value: float | None = None
    """The mean of what counts of its trials; of the incumbent it moves with each further one."""
    delta: float | None = None
    sigma: float | None = None
    low: float | None = None
    high: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def trial(self) -> Trial | None:
        """The latest trial, or None before the first."""
        return self.trials[-1] if self.trials else None

    @property
    def recent(self) -> list[Trial]:
        """The trials from `counted_from` on."""
        return [trial for trial in self.trials if trial.trial >= self.counted_from]

    @property
    def counted(self) -> list[Trial]:
        """The trials that count: recent, not red, not frozen."""
        return [trial for trial in self.recent if trial.counts]

    @property
    def values(self) -> dict[int, float]:
        """What was measured of it and counts, by seed, in the order of its trials."""
        return {trial.seed: trial.value for trial in self.counted if trial.value is not None}

    @property
    def mean(self) -> float | None:
        """The mean of `values`; None where there are none."""
        return fmean(values) if (values := list(self.values.values())) else None

    @property
    def colour(self) -> Colour | None:
        """The worst that an audit found of any trial of it; None where there was no audit."""
        return max((trial.colour for trial in self.trials if trial.colour), key=COLOURS.index, default=None)

    @property
    def memory_gb(self) -> float | None:
        """Peak memory of the latest trial in GiB, as its script printed it."""
        peak = self.trial.summary.get("peak_vram_mb") if self.trial else None
        return None if peak is None else peak / 1024


class StudyState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A study at one moment. `apply` moves it on by one record; nothing else changes it."""

    seq: int = 0
    time: float = 0.0
    tag: str = ""
    branch: str = ""
    base: str = ""
    metric: str = ""
    direction: Literal["minimize", "maximize"] = "minimize"
    budget: float = 0.0
    device: str = ""
    command: str = ""
    audit: str = ""
    opened: float = 0.0

    agent: str = ""
    engine_pid: int = 0
    engine_host: str = ""
    engine_started: float = 0.0
    sandbox: str = ""
    """What walls off the trials of the engine that runs, or ran last."""
    mode: Mode = "stopped"
    mode_reason: str = ""
    steps: int = 0
    """Gates that may be passed while paused."""
    limit: int | None = None
    """The engine stops by itself once so many proposals were decided; None: it goes on."""
    approving: bool = False
    """Whether each proposal waits for a person before it trains."""
    asked: str = ""
    """What a coding agent wants to do that a person has to allow, while it waits for the answer."""
    breakpoints: tuple[str, ...] = ()

    spec: int = 0
    spec_digest: str = ""
    experiments: list[Experiment] = []
    """Position equals number."""
    incumbent: int | None = None
    before: Experiment | None = None
    """The experiment of the latest verdict as it was before that, while it can be undone."""
    incumbent_before: int | None = None
    notes: list[str] = []
    usage: dict[str, Usage] = {}
    """What each agent's turns came to."""
    ran: float = 0.0
    """Seconds, up to the latest record, in which an engine ran and was not paused."""
    failures: int = 0
    """Proposals in a row that came to nothing."""
    away: bool = False
    """Whether the agent could not be reached when it was asked last."""
    last_failure: str = ""
    retry_at: float | None = None
    warnings: list[str] = []

    @property
    def current(self) -> Experiment | None:
        """The experiment under way, or None between two. One whose verdict was undone goes before one just begun."""
        return next((experiment for experiment in self.experiments[-2:] if experiment.stage != "decided"), None)

    @property
    def best(self) -> Experiment | None:
        """The incumbent."""
        return None if self.incumbent is None else self.experiments[self.incumbent]

    @property
    def measuring(self) -> Experiment | None:
        """The current experiment or the incumbent, while a trial of it runs or waits for its audit."""
        for experiment in (self.current, self.best):
            trial = experiment.trial if experiment else None
            if trial and (trial.outcome is None or self.needs_audit(trial)):
                return experiment
        return None

    @property
    def awaiting(self) -> Experiment | None:
        """The proposal that waits for a person's approval."""
        current = self.current
        if not self.approving or current is None or current.stage != "proposed" or current.approved:
            return None
        return None if current.agent == BASELINE or self.measuring else current

    def needs_audit(self, trial: Trial) -> bool:
        return bool(self.audit) and trial.outcome == "ok" and trial.colour is None

    @property
    def used(self) -> Usage:
        """What all agents came to."""
        names = Usage.__struct_fields__
        return Usage(**{name: sum(getattr(usage, name) for usage in self.usage.values()) for name in names})

    @property
    def noise(self) -> Noise:
        """By how much two runs of one script differ in this study, as far as what is decided tells."""
        return noise_of(experiment for experiment in self.experiments if experiment.stage == "decided")

    @property
    def baseline(self) -> Experiment | None:
        """The unchanged script, once it is measured: experiment 0, unless that did not run."""
        return next((experiment for experiment in self.experiments if experiment.verdict == "keep"), None)

    @property
    def tried(self) -> int:
        """How many proposals were decided."""
        return sum(self.counts().values())

    @property
    def gain(self) -> float | None:
        """By how much the incumbent beats the baseline (positive: better); None before both are measured."""
        if self.best is None or self.baseline is None or self.best.value is None or self.baseline.value is None:
            return None
        return self.better_by(self.best.value, self.baseline.value)

    @property
    def gain_error(self) -> float | None:
        """The standard error of the gain, as far as the study's noise is known."""
        best, baseline, noise = self.best, self.baseline, self.noise
        if best is None or baseline is None or best is baseline or not noise.freedom:
            return None
        own, other = best.values, baseline.values
        return noise.between(own, other) if own and other else None

    def better_by(self, value: float, than: float) -> float:
        """How much better `value` is, in the metric's unit; negative where it is worse."""
        return than - value if self.direction == "minimize" else value - than

    def counts(self) -> dict[Verdict, int]:
        """How many proposals ended in each verdict; measuring the baseline is none."""
        counts: dict[Verdict, int] = {"keep": 0, "discard": 0, "crash": 0, "reject": 0}
        for experiment in self.experiments:
            if experiment.verdict is not None and experiment.agent != BASELINE:
                counts[experiment.verdict] += 1
        return counts

    def apply(self, record: Record) -> None:
        """Move on by one record. Records must come in the order of the journal."""
        event = record.event
        if self.mode == "running" and not isinstance(event, ev.EngineStarted):
            self.ran += max(0.0, record.time - self.time)
        self.seq, self.time = record.seq, record.time
        match event:
            case ev.StudyOpened():
                self.tag, self.branch, self.base = event.tag, event.branch, event.base
                self.metric, self.direction, self.budget = event.metric, event.direction, event.budget
                self.device, self.command, self.opened = event.device, event.command, record.time
                self.audit = event.audit
            case ev.EngineStarted():
                self.agent, self.engine_pid, self.engine_host = event.agent, event.pid, event.host
                self.engine_started, self.sandbox = record.time, event.sandbox
                self.mode, self.mode_reason, self.steps = "running", "", 0
                self.failures, self.last_failure, self.retry_at, self.away = 0, "", None, False
                self.asked = ""
                self.limit = None if event.experiments is None else self.tried + event.experiments
            case ev.EngineStopped():
                self.mode, self.mode_reason, self.engine_pid = "stopped", event.reason, 0
            case ev.SpecChanged():
                self.spec, self.spec_digest = event.version, event.digest
            case ev.ProposalStarted():
                self._pass_gate()
                if event.number == len(self.experiments):
                    self.experiments.append(_begin(event, record.time))
                else:
                    used = self.experiments[event.number].used
                    self.experiments[event.number] = replace(_begin(event, record.time), used=used)
            case ev.Proposed():
                self._update(
                    event.number,
                    stage="proposed",
                    commit=event.commit,
                    hypothesis=event.hypothesis,
                    expected_effect=event.expected_effect,
                    changes=_shared(event.changes),
                    added=event.added,
                    removed=event.removed,
                    fingerprint=event.fingerprint,
                    patch=event.patch,
                    cautions=event.cautions,
                    amended=event.by == "person",
                )
                if event.repair:
                    counted_from = len(self.experiments[event.number].trials) + 1
                    self._update(event.number, approved=False, counted_from=counted_from)
                self.failures, self.last_failure, self.retry_at, self.away = 0, "", None, False
            case ev.Permission():
                self.asked = event.what if event.allowed is None else ""
            case ev.Approved():
                self._update(event.number, approved=True)
            case ev.ProposalFailed():
                self.failures += not event.away
                self.last_failure, self.retry_at, self.away = event.reason, record.time + event.wait, event.away
                if event.away and (repairs := self.experiments[event.number].repairs):
                    self._update(event.number, repairs=repairs - 1)  # It was not heard.
            case ev.RepairStarted():
                self._update(event.number, repairs=event.attempt)
            case ev.AgentUsed():
                self.usage = {**self.usage, event.agent: self.usage.get(event.agent, Usage()).plus(event)}
                self._update(event.number, used=self.experiments[event.number].used.plus(event))
            case ev.TrialStarted():
                self._pass_gate()
                trial = Trial(
                    number=event.number,
                    trial=event.trial,
                    device=event.device,
                    seed=event.seed,
                    budget=event.budget,
                    sandbox=event.sandbox,
                    started=record.time,
                )
                experiment = self.experiments[event.number]
                stage = "decided" if experiment.stage == "decided" else "training"
                self._update(event.number, stage=stage, trials=(*experiment.trials, trial))
            case ev.TrialPaused():
                disturbed = self.experiments[event.number].trials[-1].disturbed or not event.cooperative
                self._update_trial(event.number, paused=True, disturbed=disturbed)
            case ev.TrialResumed():
                self._update_trial(event.number, paused=False)
            case ev.TrialFinished():
                self._update_trial(
                    event.number,
                    paused=False,
                    ended=record.time,
                    outcome=event.outcome,
                    value=None if self.audit else event.value,
                    claimed=event.value if self.audit else None,
                    summary=event.summary,
                    reason=event.reason,
                    exit_code=event.exit_code,
                    wall_seconds=event.wall_seconds,
                    paused_seconds=event.paused_seconds,
                    cpu_seconds=event.cpu_seconds,
                )
                if self.experiments[event.number].stage == "training":
                    self._update(event.number, stage="trained")
                self._remeasure(event.number)
            case ev.Audited():
                self._update_trial(
                    event.number,
                    value=event.value,
                    colour=event.colour,
                    holdout=event.holdout,
                    findings=event.findings,
                )
                self._remeasure(event.number)
            case ev.Rebased():
                self._update(event.number, counted_from=event.trial)
                self._remeasure(event.number)
            case ev.Decided():
                self._decide(event, record.time)
            case ev.Undone():
                self._undo(event, record.time)
            case ev.GateSet():
                self.approving = event.on
            case ev.BreakpointSet():
                others = (condition for condition in self.breakpoints if condition != event.condition)
                self.breakpoints = (*others, event.condition)
            case ev.BreakpointCleared():
                self.breakpoints = tuple(one for one in self.breakpoints if one != event.condition)
            case ev.Paused():
                self.mode, self.mode_reason, self.steps = "paused", event.reason, 0
            case ev.Resumed():
                self.mode, self.mode_reason, self.steps = "running", "", 0
            case ev.Stepped():
                self.mode, self.mode_reason, self.steps = "paused", "single step", event.gates
            case ev.Noted():
                if event.number is None:
                    self.notes = [*self.notes, event.text]
                else:
                    notes = (*self.experiments[event.number].notes, event.text)
                    self._update(event.number, notes=notes)
            case ev.Warned():
                self.warnings = [*self.warnings, event.text][-WARNINGS_KEPT:]

    def _update(self, number: int, **fields: object) -> None:
        self.experiments[number] = replace(self.experiments[number], **fields)

    def _update_trial(self, number: int, **fields: object) -> None:
        *earlier, last = self.experiments[number].trials
        self._update(number, trials=(*earlier, replace(last, **fields)))

    def _remeasure(self, number: int) -> None:
        """What is kept is worth what all its trials say, not what the one said that it was kept for."""
        experiment = self.experiments[number]
        if experiment.verdict == "keep" and (mean := experiment.mean) is not None:
            self._update(number, value=mean)

    def _pass_gate(self) -> None:
        self.steps = max(0, self.steps - 1)

    def _decide(self, event: ev.Decided, time: float) -> None:
        self._pass_gate()
        self.before, self.incumbent_before = self.experiments[event.number], self.incumbent
        self._update(
            event.number,
            stage="decided",
            ended=time,
            verdict=event.verdict,
            reason=event.reason,
            by=event.by,
            value=event.value,
            delta=event.delta,
            sigma=event.sigma,
            low=event.low,
            high=event.high,
        )
        if event.verdict == "keep":
            self.incumbent = event.number

    def _undo(self, event: ev.Undone, time: float) -> None:
        before, self.before = self.before, None
        assert before is not None and before.number == event.number
        number, kept = before.number, self.experiments[before.number].verdict == "keep"
        self.incumbent = self.incumbent_before
        if before.verdict is not None:
            # A person had kept it over an earlier verdict, which holds again.
            names = ("ended", "verdict", "reason", "by", "value", "delta", "sigma", "low", "high")
            self._update(number, **{name: getattr(before, name) for name in names})
        elif kept:
            self._update(number, verdict="reject", reason=event.why, by="person", ended=time)
        else:
            self._update(
                number,
                stage="proposed" if before.commit else "proposing",
                verdict=None,
                ended=None,
                reason="",
                by="judge",
                value=None,
                delta=None,
                sigma=None,
                low=None,
                high=None,
                counted_from=len(self.experiments[number].trials) + 1,
            )


def _begin(event: ev.ProposalStarted, time: float) -> Experiment:
    return Experiment(
        number=event.number, stage="proposing", base=event.base, agent=event.agent, spec=event.spec, started=time
    )


def _shared(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """`changes` with one string for equal ones, since a study moves the same few constants again and again."""
    return tuple(Change(sys.intern(one.name), sys.intern(one.old), sys.intern(one.new)) for one in changes)


def noise_of(experiments: Iterable[Experiment]) -> Noise:
    """What the trials of `experiments` tell of luck: replicates, and differences from the incumbent on one seed."""
    several = [experiment for experiment in experiments if len(experiment.trials) > 1]  # One trial alone tells nothing.
    values = {experiment.number: experiment.values for experiment in several}
    kept = {experiment.commit: experiment for experiment in several if experiment.verdict == "keep"}
    differences = []
    for experiment in several:
        own, against = values[experiment.number], kept.get(experiment.base)
        if against and against is not experiment and len(own) > 1:
            other = values[against.number]
            differences.append([own[seed] - other[seed] for seed in own if seed in other])
    return estimate([list(own.values()) for own in values.values()], differences)


def fold(records: Iterable[Record]) -> StudyState:
    """The state after `records`, from the first one of a journal on."""
    state = StudyState()
    for record in records:
        state.apply(record)
    return state
