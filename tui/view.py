"""What the panes show: the study's state and its telemetry, folded from a client's updates. No widget, no I/O."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from loop.events import (
    AgentDelta,
    Audited,
    DraftDiff,
    LogLines,
    Machine,
    ProposalStarted,
    Step,
    TrialStarted,
    Verdict,
    Warned,
)
from loop.remote.client import Update
from loop.remote.wire import Recorded, Snapshot
from loop.state import Experiment, StudyState
from tui import curves, words
from tui.curves import Gap
from tui.link import Link

Topic = Literal["state", "words", "diff", "steps", "log", "machine"]
"""What an update touches; a pane names the topics that it shows."""

ALL: frozenset[Topic] = frozenset(("state", "words", "diff", "steps", "log", "machine"))

WORDS_KEPT = 2000
LONGEST_LINE = 2000
"""Characters after which a line of the agent's ends, whether it says so or not: it is drawn anew at every piece."""
LINES_KEPT = 5000
STEPS_KEPT = 4000
MACHINE_KEPT = 120

Kind = Literal["thought", "text", "tool", "status", "turn", "output", "engine", "warning"]


class Line(NamedTuple):
    """A line of the agent's words or of the log; of a `turn` the text is the experiment's name."""

    kind: Kind
    text: str


class Tail:
    """The latest lines of a stream, each with a place that stays its own when older ones are dropped."""

    def __init__(self, keep: int) -> None:
        self._lines: deque[Line] = deque(maxlen=keep)
        self._end = 0
        self.epoch = 0
        """Counts how often the stream began anew, so that a reader knows to do so too."""
        self.pieces = 0
        """Counts what came, lines and pieces of them."""

    @property
    def end(self) -> int:
        """The place after the last line."""
        return self._end

    def append(self, line: Line) -> None:
        self._lines.append(line)
        self._end += 1
        self.pieces += 1

    def extend_last(self, text: str) -> int:
        """Gives how long it is now, in characters."""
        last = self._lines.pop()
        self._lines.append(Line(last.kind, last.text + text))
        self.pieces += 1
        return len(last.text) + len(text)

    def since(self, place: int) -> list[Line]:
        """The lines from `place` on, as far as they are still there."""
        first = self._end - len(self._lines)
        skip = max(0, place - first)
        return list(islice(self._lines, skip, None))

    def clear(self) -> None:
        self._lines.clear()
        self._end = 0
        self.epoch += 1

    def __len__(self) -> int:
        return len(self._lines)


class Tally(NamedTuple):
    """What takes a walk through all experiments: taken once a record, not once a frame."""

    counts: dict[Verdict, int]
    tried: int
    rate: float | None
    """Experiments an hour, lately."""
    busy: float
    """Seconds for which trials that have ended held the device."""
    luck: float
    """How far one trial may be off by luck, at two standard deviations, where it is held against another on its seed;
    0 before that is known."""
    gain: str | None
    bill: str
    """What the agents have used; "": nothing that is counted."""


class View:
    """Everything on the screen comes from here; `take` moves it on by one update and says what that touched."""

    def __init__(self) -> None:
        self.state = StudyState()
        self.connected = False
        self.missing = ""
        """Why no engine answers, while none does."""
        self.link = Link()
        self.words = Tail(WORDS_KEPT)
        self.log = Tail(LINES_KEPT)
        self.diff: DraftDiff | None = None
        self.steps: list[Step] = []
        self.rival: list[Step] = []
        """The incumbent's steps, to hold the running trial's against."""
        self.machine: deque[Machine] = deque(maxlen=MACHINE_KEPT)
        self._tally: tuple[int, Tally] | None = None
        self._gap: tuple[Step | None, list[Step], Gap] | None = None
        self._speaker: tuple[int, str] | None = None
        """Whose line is open in `words`: the experiment and the kind."""

    @property
    def shown(self) -> Experiment | None:
        """The experiment that the panes are about: the one under way, or the latest."""
        return self.state.experiments[-1] if self.state.experiments else None

    @property
    def draft(self) -> DraftDiff | None:
        """What is there of the shown experiment's diff."""
        return self.diff if self.diff is not None and self.shown and self.diff.number == self.shown.number else None

    @property
    def tally(self) -> Tally:
        state = self.state
        if self._tally is None or self._tally[0] != state.seq:
            counts = state.counts()
            tally = Tally(
                counts=counts,
                tried=sum(counts.values()),
                rate=words.rate(state.experiments),
                busy=words.busy(state),
                luck=2 * state.noise.paired,
                gain=words.gain(state),
                bill=words.bill(state.used) if state.used.tokens else "",
            )
            self._tally = state.seq, tally
        return self._tally[1]

    @property
    def gap(self) -> Gap:
        """How the running trial does against the incumbent, as of its latest step."""
        if self._gap is None or self._gap[0] is not self.step or self._gap[1] is not self.rival:
            self._gap = self.step, self.rival, curves.gap(self.steps, self.rival)
        return self._gap[2]

    @property
    def step(self) -> Step | None:
        return self.steps[-1] if self.steps else None

    def now(self) -> float:
        """The time that clocks on the screen tell. One that nobody moves any more stands still."""
        return time.time() if self.connected else self.state.time

    def take(self, update: Update, state: StudyState) -> frozenset[Topic]:
        """Fold one update; `state` is the client's after it."""
        self.state, self.connected, self.missing = state, True, ""
        match update:
            case Snapshot():
                self._begin()
                for message in update.recent:
                    self.take(message, state)
                return ALL
            case Recorded():
                return self._record(update)
            case AgentDelta():
                self._say(update)
                return frozenset(("words",))
            case DraftDiff():
                self.diff = update
                return frozenset(("diff",))
            case Step():
                self._step(update)
                return frozenset(("steps",))
            case LogLines():
                for line in update.lines:
                    self.log.append(Line("output", line))
                return frozenset(("log",))
            case Machine():
                self.machine.append(update)
                return frozenset(("machine",))

    def lose(self, why: str) -> None:
        """No engine answers any more, or still none does. How a study was lost is told until it is found again."""
        if self.connected or not self.state.seq:
            self.missing = why
        self.connected = False

    def _begin(self) -> None:
        self.words.clear()
        self.log.clear()
        self.steps, self.diff, self._speaker = [], None, None
        self._tally = self._gap = None
        self.machine.clear()

    def _record(self, update: Recorded) -> frozenset[Topic]:
        touched: set[Topic] = {"state"}
        match update.record.event:
            case ProposalStarted():
                self.diff, self._speaker = None, None
                touched.add("diff")
            case TrialStarted():
                self.steps = []
                touched.add("steps")
        if (line := words.happened(update.record)) is not None:
            self.log.append(Line("warning" if _warns(update) else "engine", line))
            touched.add("log")
        return frozenset(touched)

    def _say(self, delta: AgentDelta) -> None:
        """Split what the agent says into lines; the last one stays open for its next piece."""
        if not delta.text:
            return
        speaker = (delta.number, delta.kind)
        if self._speaker is None or self._speaker[0] != delta.number:
            self.words.append(Line("turn", words.name(delta.number)))
        if delta.kind in ("tool", "status"):
            # Each is a line, or a few, of its own: none goes on where the one before it ended.
            for text in delta.text.rstrip("\n").split("\n"):
                self.words.append(Line(delta.kind, text))
            self._speaker = (delta.number, "")
            return
        first, *rest = delta.text.split("\n")
        if speaker == self._speaker:
            if self.words.extend_last(first) > LONGEST_LINE:
                rest.insert(0, "")
        else:
            self.words.append(Line(delta.kind, first))
        for text in rest:
            self.words.append(Line(delta.kind, text))
        self._speaker = speaker

    def _step(self, step: Step) -> None:
        last = self.step
        if last is not None and (last.number, last.trial) != (step.number, step.trial):
            self.steps = []
        elif last is not None and step.time <= last.time and step.step <= last.step:
            return  # What was fetched may come once more in the stream.
        self.steps.append(step)
        if len(self.steps) > STEPS_KEPT:
            del self.steps[:-1:2]  # Half the points make the same curve.


def _warns(update: Recorded) -> bool:
    event = update.record.event
    return isinstance(event, Warned) or (isinstance(event, Audited) and event.colour != "green")


_step_decoder = msgspec.json.Decoder(Step)


def steps_of(metrics: str) -> list[Step]:
    """The steps in an experiment's metrics file; a line cut short at either end is left out."""
    steps = []
    for line in metrics.splitlines():
        try:
            steps.append(_step_decoder.decode(line))
        except msgspec.MsgspecError:
            continue
    return steps
