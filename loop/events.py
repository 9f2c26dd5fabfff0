"""Everything that happens, one small frozen struct each.

Two families. An `Event` is a fact of the study: it is journalled, and state is the fold of all of them. A `Telemetry`
message is one of many and soon stale (a step, a log line, a token): it is streamed to viewers and kept in files per
experiment, never in the journal.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["keep", "discard", "crash", "reject"]
Author = Literal["judge", "person", "engine"]
Outcome = Literal["ok", "crash", "timeout", "killed", "lost"]
"""How a trial ended: measured; failed by itself; past its time; ended on command; lost, through no fault of its own."""
CautionKind = Literal["evaluation", "clock", "seed", "validation data", "score", "network", "process", "files"]
SandboxKind = Literal["bubblewrap", "landlock", "off"]
"""What walls trials off."""
Colour = Literal["green", "amber", "red"]
"""What an audit found of a score: nothing against it; something a person should look at; that it does not count."""
COLOURS: tuple[Colour, ...] = ("green", "amber", "red")
"""From best to worst."""


class Event(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, omit_defaults=True):
    """Base of all journalled facts. New fields need defaults: old journals must stay readable."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One named constant that a proposal moves, as source text on both sides."""

    name: str
    old: str
    new: str


class Caution(msgspec.Struct, frozen=True):
    """A line of a proposal that a person should look at twice, and what it has to do with."""

    path: str
    line: int
    """In the new file, from 1; for what was removed, the line that stands there now."""
    kind: CautionKind
    text: str
    """The line, stripped, at most 200 characters; what was removed stands behind a `- `."""


class StudyOpened(Event, frozen=True):
    """The study's terms, fixed at its start. `budget` is in seconds of the trial's own clock."""

    tag: str
    branch: str
    base: str
    metric: str
    direction: Literal["minimize", "maximize"]
    budget: float
    device: str
    command: str
    audit: str = ""
    """The command that measures what a trial hands over; "": the script's own word counts."""


class EngineStarted(Event, frozen=True):
    pid: int
    host: str
    agent: str
    version: str
    sandbox: str = ""
    """What walls its trials off: bubblewrap, landlock or off."""
    experiments: int | None = None
    """The engine stops by itself after so many more proposals are decided; None: it goes on until it is stopped."""


class EngineStopped(Event, frozen=True):
    reason: str


class SpecChanged(Event, frozen=True):
    """program.md has a new version, numbered from 1. `digest` is the first 12 hex digits of its SHA-256."""

    version: int
    digest: str


class ProposalStarted(Event, frozen=True):
    """The agent was asked for experiment `number`, against commit `base`, under program.md version `spec`."""

    number: int
    base: str
    agent: str
    spec: int


class Proposed(Event, frozen=True):
    """The proposal stands and is committed; its diff is in `proposal.diff` of the experiment's folder.

    It comes again, `by` a person, where one changed the patch before it was trained.
    """

    number: int
    commit: str
    hypothesis: str
    expected_effect: str = ""
    changes: tuple[Change, ...] = ()
    added: int = 0
    removed: int = 0
    fingerprint: str = ""
    """Of the editable files as they then stand, formatting ignored: equal ones are the same experiment."""
    patch: str = ""
    """Of its patch: equal ones make the same change, whatever it is made to. Journals of before have none."""
    cautions: tuple[Caution, ...] = ()
    by: Literal["agent", "person"] = "agent"
    repair: int = 0
    """The how-manieth repair of what crashed it is, from 1; its earlier trials do not count. 0: the proposal itself."""


class Approved(Event, frozen=True):
    """A person lets the proposal train."""

    number: int


class Permission(Event, frozen=True):
    """In approve mode a coding agent wants to do `what`, and waits; it comes again with the answer.

    The engine answers `by` itself, with a no, where nobody does in time or the turn ends.
    """

    number: int
    what: str
    allowed: bool | None = None
    by: Author = "person"


class ProposalFailed(Event, frozen=True):
    """The agent gave nothing usable; the number is asked again after `wait` seconds."""

    number: int
    reason: str
    wait: float = 0.0
    away: bool = False
    """The agent could not be reached, which is no fault of its proposals."""


class RepairStarted(Event, frozen=True):
    """The agent was asked to mend what crashed; `attempt` counts from 1."""

    number: int
    attempt: int
    agent: str


class AgentUsed(Event, frozen=True):
    """What one turn of an agent came to, whatever became of it. Tokens; `cached` are among `input`.

    `cost` is the sum of what is known, `unpriced` the tokens of which it is not. `seconds` are the turn's.
    """

    number: int
    agent: str
    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    cost: float = 0.0
    unpriced: int = 0
    seconds: float = 0.0
    mends: int = 0
    """How often an answer went back because its edits, or the answer itself, could not be used."""
    usable: bool | None = None
    """Whether it came to edits that can be run; None: it never answered."""


class TrialStarted(Event, frozen=True):
    """One execution of the training command. Trials of an experiment count from 1."""

    number: int
    trial: int
    device: str
    seed: int
    budget: float
    sandbox: str = ""


class TrialPaused(Event, frozen=True):
    """`cooperative`: the script stopped its own clock at a step. Otherwise the tree was frozen from outside."""

    number: int
    trial: int
    cooperative: bool


class TrialResumed(Event, frozen=True):
    number: int
    trial: int


class TrialFinished(Event, frozen=True):
    """`value` is the metric where `outcome` is "ok"; `summary` holds every number of the script's summary block.

    In a study that audits, the metric is the audit's to measure, and `value` what the script claims, if it claims any.
    `cpu_seconds` is the CPU time of all its processes; `paused_seconds` are among `wall_seconds`.
    """

    number: int
    trial: int
    outcome: Outcome
    value: float | None = None
    cpu_seconds: float = 0.0
    summary: dict[str, float] = {}
    reason: str = ""
    exit_code: int | None = None
    wall_seconds: float = 0.0
    paused_seconds: float = 0.0


class Audited(Event, frozen=True):
    """What code that the agent cannot touch found of a trial. `value` is the metric as it measured it.

    `holdout` is the same on text that nobody trains or chooses by.
    """

    number: int
    trial: int
    colour: Colour
    value: float | None = None
    holdout: float | None = None
    findings: tuple[str, ...] = ()


class Rebased(Event, frozen=True):
    """The machine has changed: of the incumbent's trials only those from `trial` on count from now on."""

    number: int
    trial: int
    reason: str


class Decided(Event, frozen=True):
    """The verdict; the latest one counts.

    `value` is the mean of its trials; `delta` the mean difference from the incumbent over the seeds both have run,
    `sigma` its standard error, and `low` to `high` the interval it lies in with nine chances in ten.
    """

    number: int
    verdict: Verdict
    reason: str
    by: Author = "judge"
    value: float | None = None
    delta: float | None = None
    sigma: float | None = None
    low: float | None = None
    high: float | None = None


class Undone(Event, frozen=True):
    """The latest verdict, on experiment `number`, is taken back.

    What was kept leaves the branch and has the verdict it had before, else a person's reject; what was not is open
    again, and its earlier trials do not count.
    """

    number: int
    why: str


class Paused(Event, frozen=True):
    by: Author = "person"
    reason: str = ""


class Resumed(Event, frozen=True):
    by: Author = "person"


class Stepped(Event, frozen=True):
    """The study may pass so many gates (propose, run, judge) and then waits; 0: it finishes what it is at."""

    by: Author = "person"
    gates: int = 1


class GateSet(Event, frozen=True):
    """Approve mode: while it is `on`, each proposal waits for a person before it trains."""

    on: bool


class BreakpointSet(Event, frozen=True):
    """The study pauses when the condition holds; see `loop.breakpoints`."""

    condition: str


class BreakpointCleared(Event, frozen=True):
    condition: str


class Noted(Event, frozen=True):
    """A person's words for the next briefing, and, where `number` is given, beside that experiment."""

    text: str
    number: int | None = None


class Warned(Event, frozen=True):
    """Something a person should know that changes no verdict: a journal repaired, a device out of reach."""

    text: str


AnyEvent = (
    StudyOpened
    | EngineStarted
    | EngineStopped
    | SpecChanged
    | ProposalStarted
    | Proposed
    | Approved
    | Permission
    | ProposalFailed
    | RepairStarted
    | AgentUsed
    | TrialStarted
    | TrialPaused
    | TrialResumed
    | TrialFinished
    | Audited
    | Rebased
    | Decided
    | Undone
    | Paused
    | Resumed
    | Stepped
    | GateSet
    | BreakpointSet
    | BreakpointCleared
    | Noted
    | Warned
)


class Record(msgspec.Struct, frozen=True):
    """An event as journalled: its place in the sequence (from 1) and its UTC time in seconds since the epoch."""

    seq: int
    time: float
    event: AnyEvent


class Telemetry(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, omit_defaults=True):
    """Base of what is streamed and not journalled."""


class AgentDelta(Telemetry, frozen=True):
    """A piece of what the agent thinks, says or does. Foreign text, stripped of control sequences."""

    number: int
    kind: Literal["thought", "text", "tool", "status"]
    text: str


class DraftDiff(Telemetry, frozen=True):
    """The proposal as a unified diff, as soon as it is known, before training starts.

    While the agent writes it, it comes again and again, with what the agent has said it is for.
    """

    number: int
    diff: str
    hypothesis: str = ""
    expected_effect: str = ""


class Step(Telemetry, frozen=True):
    """One progress line of the script. `time`: seconds since the trial's start; `progress`: 0..1 of the budget."""

    number: int
    trial: int
    time: float
    step: int
    loss: float
    progress: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None


class LogLines(Telemetry, frozen=True):
    """Lines of the trial's output, stripped of control sequences; progress lines are not among them."""

    number: int
    trial: int
    lines: tuple[str, ...]


class Device(msgspec.Struct, frozen=True):
    """One accelerator's readings: shares in 0..1, memory in bytes, °C, W, MHz; None where the driver does not tell."""

    name: str
    utilisation: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None
    clock: float | None = None


class Machine(Telemetry, frozen=True):
    """The host's readings at `time` (seconds since the epoch). `cpu` is one share in 0..1 per core; memory in bytes."""

    time: float
    cpu: tuple[float, ...]
    memory_used: int
    memory_total: int
    load: float
    devices: tuple[Device, ...] = ()


AnyTelemetry = AgentDelta | DraftDiff | Step | LogLines | Machine
