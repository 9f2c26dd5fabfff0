"""The offline agent: Optuna's TPE over the constants at the top of the editable files. No model, no network, no key.

It is the honest baseline an LLM has to beat. It climbs from the incumbent by one or two constants at a time, so that a
person can read each step: first it moves every constant once, then it follows what was just kept, and from then on it
asks TPE. Everything it knows comes from the briefing; the same history and seed give the same proposal.
"""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from loop.agents import AgentEvent, Desk, Failed, Proposal, Text, Thought
from loop.briefing import Briefing
from loop.constants import Constant, Value, find_constants, literal, parse, set_constants
from loop.patch import Edit
from loop.state import Experiment

Name = tuple[str, str]
"""A file and a constant of it."""
Point = dict[Name, Value]

DRAWS = 60
"""So many values are drawn before the neighbourhood counts as exhausted."""
TWO_AT_ONCE = 0.3
"""How often TPE may move two constants instead of one."""

TRIALS_HELD = 400
"""Trials that Optuna holds in memory before it begins anew with those that tell most."""
BEST_TOLD, LATEST_TOLD = 60, 140
"""Which those are."""

FIRST_MOVES = ((1, "never moved before; a large step shows most"), (2, "moved only one way so far; now the other"))
"""Before TPE is asked each constant is moved so often, for these reasons."""


class Dimension(msgspec.Struct, frozen=True):
    """What one constant may be: one of `options`, or a number in `low`..`high`."""

    constant: Constant
    options: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False


class Move(msgspec.Struct, frozen=True):
    """Where to go from the incumbent, and why, in words."""

    values: dict[Name, Value]
    why: str


class SearchAgent:
    """See the module's words. One object serves one study; it keeps Optuna's in memory between turns."""

    name = "search"
    repairs = False

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._study: Any = None
        self._held = 0
        """Trials in Optuna's study."""
        self._told = -1
        """The latest experiment in it."""
        self._space: dict[Name, Dimension] = {}
        self._tried: set[bytes] = set()
        """The points of all experiments up to `_seen`, hashed: over months they add up."""
        self._seen = -1

    async def probe(self) -> tuple[str, ...]:
        return ("it is offline, and always there",)

    async def propose(self, briefing: Briefing, desk: Desk | None = None) -> AsyncGenerator[AgentEvent, None]:
        if not self._space:
            self._space = dimensions(briefing.baseline_files or briefing.files, briefing.device)
        if not self._space:
            yield Failed(
                "the editable files have no constants to search; it wants `NAME = literal` above the first function"
            )
            return
        measured = [experiment for experiment in briefing.history if experiment.value is not None]
        yield Thought(
            f"Optuna TPE over {len(self._space)} constants of {', '.join(sorted(briefing.files))}; "
            f"{len(measured)} measured so far.\n"
        )
        for line in _lessons(briefing):
            yield Thought(f"{line}\n")
        move = await asyncio.to_thread(self._move, briefing)
        if move is None:
            yield Failed("every move from the incumbent was tried; widen the ranges in the constants' comments")
            return
        here = _point(briefing.files, briefing.device)
        words = ", ".join(f"{name[1]} {literal(here[name])} -> {literal(value)}" for name, value in move.values.items())
        effect = _expected(briefing, move)
        yield Text(f"**{words}**\n\n{move.why}\n\nExpected: {effect}\n")
        yield Proposal(f"{words}: {move.why}", effect, _edits(briefing, move.values))

    def _move(self, briefing: Briefing) -> Move | None:
        points, tried = Points(briefing), self._tried
        for experiment in briefing.history[bisect.bisect(briefing.history, self._seen, key=lambda past: past.number) :]:
            tried.add(_key(points.of(experiment)))
            self._seen = experiment.number
        here = _point(briefing.files, briefing.device)
        draw = f"{self._seed}/{briefing.number}/{len(briefing.feedback)}"
        chance = random.Random(hashlib.sha256(draw.encode()).digest())
        usable = [name for name in self._space if name in here]

        def fresh(values: Mapping[Name, Value]) -> bool:
            return any(here[name] != value for name, value in values.items()) and _key({**here, **values}) not in tried

        candidates = [(moves, why, name) for moves, why in FIRST_MOVES for name in usable]
        times_moved = Counter(change.name for past in briefing.history for change in past.changes)
        # A refused proposal is not in the history; its number's later turns draw anew instead of repeating it.
        if not briefing.feedback:
            if (onward := _onward(briefing, self._space, here)) and fresh(onward):
                return Move(onward, "the last step this way was kept, so one more of the same")
            for moves, why, name in candidates:
                if times_moved[name[1]] >= moves:
                    continue
                for value in _first_steps(self._space[name], here[name]):
                    if fresh({name: value}):
                        return Move({name: value}, why)
        for _ in range(DRAWS):
            free = chance.sample(usable, k=min(len(usable), 2 if chance.random() < TWO_AT_ONCE else 1))
            values = self._ask(briefing, points, here, free, chance.getrandbits(31))
            if fresh(values):
                moved = {name: value for name, value in values.items() if value != here[name]}
                return Move(moved, "TPE expects the most of it, the other constants as in the incumbent")
        return None

    def _ask(self, briefing: Briefing, points: Points, here: Point, free: list[Name], seed: int) -> dict[Name, Value]:
        """TPE's values for the `free` constants, the others held where the incumbent has them."""
        import optuna

        distributions = {_label(name): _distribution(dimension) for name, dimension in self._space.items()}
        measured = [past for past in briefing.history if past.commit is not None and past.value is not None]
        untold = [past for past in measured if past.number > self._told]
        if self._study is None or self._held + len(untold) >= TRIALS_HELD:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            self._study, self._held = optuna.create_study(direction=briefing.direction), 0
            untold = _telling(measured, largest_first=briefing.direction == "maximize")
        for past in untold:
            point = points.of(past)
            params = {_label(name): _inside(self._space[name], point[name]) for name in self._space if name in point}
            shape = {label: distributions[label] for label in params}
            self._study.add_trial(optuna.trial.create_trial(params=params, distributions=shape, value=past.value))
        self._told = max((past.number for past in measured), default=-1)
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0)
        asked = self._study.ask({_label(name): distributions[_label(name)] for name in free})
        self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        self._held += len(untold) + 1
        return {name: _tidy(asked.params[_label(name)]) for name in free}


class Points:
    """Where each experiment stood: its constants are its base's with its own changes."""

    def __init__(self, briefing: Briefing) -> None:
        self._start = _point(briefing.baseline_files or briefing.files, briefing.device)
        self._kept = {past.commit: past for past in briefing.history if past.verdict == "keep"}
        self._bases: dict[str, Point] = {}

    def of(self, experiment: Experiment) -> Point:
        point = dict(self._base(experiment))
        for change in experiment.changes:
            value = parse(change.new)
            for name in point:
                if name[1] == change.name and value is not None:
                    point[name] = value
        return point

    def _base(self, experiment: Experiment) -> Point:
        if experiment.base not in self._bases:
            base = self._kept.get(experiment.base)
            # The baseline stands on itself.
            self._bases[experiment.base] = self._start if base is None or base is experiment else self.of(base)
        return self._bases[experiment.base]


def _telling(measured: list[Experiment], *, largest_first: bool) -> list[Experiment]:
    """The best and the latest, oldest first: what else there is says little more."""
    ranked = sorted(measured, key=lambda past: past.value or 0.0, reverse=largest_first)
    chosen = {past.number for past in [*ranked[:BEST_TOLD], *measured[-LATEST_TOLD:]]}
    return [past for past in measured if past.number in chosen]


def dimensions(files: Mapping[str, str], device: str = "cpu") -> dict[Name, Dimension]:
    """What is searched: every constant that is a number, a switch, or has options in its comment."""
    found = {}
    for path in sorted(files):
        for constant in find_constants(files[path], device):
            dimension = _dimension(constant)
            if dimension is not None:
                found[path, constant.name] = dimension
    return found


def _dimension(constant: Constant) -> Dimension | None:
    value = constant.value
    if constant.options:
        return Dimension(constant, options=constant.options)
    if isinstance(value, bool):
        return Dimension(constant, options=(False, True))
    if isinstance(value, str):
        return None
    whole = isinstance(value, int)
    if constant.low is not None and constant.high is not None:
        low, high = min(constant.low, value), max(constant.high, value)
        if whole:
            low, high = math.ceil(low), math.floor(high)
        return Dimension(constant, low=low, high=high, log=constant.log and low > 0, whole=whole)
    if value <= 0:
        return None
    if whole:
        return Dimension(constant, low=max(1, value // 2), high=max(2, value + value // 2), log=value > 64, whole=True)
    return Dimension(constant, low=value / 4, high=min(1.0, value * 4) if value <= 1 else value * 4, log=True)


def _distribution(dimension: Dimension) -> Any:
    import optuna.distributions as od

    if dimension.options:
        return od.CategoricalDistribution(dimension.options)
    if dimension.whole:
        return od.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return od.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _inside(dimension: Dimension, value: Value) -> Value:
    """`value`, brought into the space: a person or another agent may have left it."""
    if dimension.options:
        return value if value in dimension.options else dimension.constant.value
    if isinstance(value, str):
        return dimension.constant.value
    clipped = min(max(value, dimension.low), dimension.high)
    return int(clipped) if dimension.whole else float(clipped)


def _first_steps(dimension: Dimension, value: Value) -> list[Value]:
    """Large single steps, the more promising first."""
    if dimension.options:
        at = dimension.options.index(value) if value in dimension.options else 0
        return [*dimension.options[at + 1 :], *reversed(dimension.options[:at])]
    if isinstance(value, str):
        return []
    if dimension.log:
        steps = [value * 2, value / 2]
    else:
        reach = (dimension.high - dimension.low) / 3
        steps = [value + reach, value - reach]
    return [
        _tidy(round(step) if dimension.whole else step) for step in steps if dimension.low <= step <= dimension.high
    ]


def _onward(briefing: Briefing, space: Mapping[Name, Dimension], here: Point) -> dict[Name, Value]:
    """One more step of what was kept last, where it was the latest experiment and moved numbers."""
    last = briefing.history[-1]
    if briefing.incumbent is None or last.number != briefing.incumbent.number:
        return {}
    onward: dict[Name, Value] = {}
    for name, dimension in space.items():
        change = next((change for change in last.changes if change.name == name[1]), None)
        if change is None or name not in here:
            continue
        old, new = parse(change.old), parse(change.new)
        if dimension.options:
            if old not in dimension.options or here[name] not in dimension.options:
                continue  # Another agent was here, and left the space.
            at = dimension.options.index(here[name])
            if dimension.options.index(old) < at < len(dimension.options) - 1:
                onward[name] = dimension.options[at + 1]
        elif isinstance(old, int | float) and isinstance(new, int | float) and old and new:
            step = new * new / old if dimension.log else new + (new - old)
            onward[name] = _tidy(_inside(dimension, round(step) if dimension.whole else step))
    return {name: value for name, value in onward.items() if value != here[name]}


def _point(files: Mapping[str, str], device: str) -> Point:
    return {(path, constant.name): constant.value for path in files for constant in find_constants(files[path], device)}


def _key(point: Point) -> bytes:
    said = "|".join(f"{name}={literal(value)}" for name, value in sorted(point.items()))
    return hashlib.blake2b(said.encode(), digest_size=8).digest()


def _label(name: Name) -> str:
    return f"{name[0]}:{name[1]}"


def _tidy(value: Value) -> Value:
    """As it will stand in the file: floats to three significant digits."""
    return float(literal(value)) if isinstance(value, float) else value


def _effect_of(experiment: Experiment) -> str:
    if experiment.delta is None:
        return experiment.verdict or ""
    return f"{experiment.verdict}, {experiment.delta:+.4f}"


def _lessons(briefing: Briefing) -> list[str]:
    """The latest results in words."""
    return [
        f"{past.number:04d} {'; '.join(f'{c.name} {c.old} -> {c.new}' for c in past.changes)}: {_effect_of(past)}"
        for past in briefing.history[-4:]
        if past.changes
    ]


def _expected(briefing: Briefing, move: Move) -> str:
    names = {name[1] for name in move.values}
    deltas = [
        past.delta
        for past in briefing.history
        if past.delta is not None and names & {change.name for change in past.changes}
    ]
    if not deltas:
        return "unknown: the first move of this constant"
    return f"between {min(deltas):+.4f} and {max(deltas):+.4f} {briefing.metric}, as its {len(deltas)} earlier moves"


def _edits(briefing: Briefing, values: Mapping[Name, Value]) -> tuple[Edit, ...]:
    """Whole lines, extended upwards until each block stands once in its file as the edits before have left it."""
    files, edits = dict(briefing.files), []
    for (path, name), value in values.items():
        text = files[path]
        files[path] = set_constants(text, {name: literal(value)}, briefing.device)
        before, after = text.splitlines(keepends=True), files[path].splitlines(keepends=True)
        at = next(index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
        start = at
        while start and text.count("".join(before[start : at + 1])) > 1:
            start -= 1
        edits.append(Edit(path, "".join(before[start : at + 1]), "".join(after[start : at + 1])))
    return tuple(edits)
