"""Breakpoints: conditions of an experiment at which the study pauses for a person. Pure.

touches LAYERS              a changed line holds the name
touches train.py            the proposal changes the file
keep | discard | crash      the verdict
gain < noise                the gain over the incumbent, in the metric's unit; `noise` is σ of this study
peak_vram_mb > 24000        any number of the script's summary; also wall_seconds, memory_gb, changed_lines
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

import msgspec

from loop.state import Experiment, StudyState

USAGE = (
    'a breakpoint is "touches NAME_OR_FILE", a verdict (keep, discard, crash), or a comparison such as "gain < noise", '
    '"gain > 0.01" or "peak_vram_mb > 24000"'
)
_COMPARISON = re.compile(r"(\w+)\s*(<=|>=|<|>)\s*(\S+)")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class Touches(msgspec.Struct, frozen=True):
    what: str


class Ends(msgspec.Struct, frozen=True):
    verdict: str


class Compares(msgspec.Struct, frozen=True):
    name: str
    sign: str
    limit: float | None
    """None: the noise."""


def parse(condition: str) -> Touches | Ends | Compares:
    """What a condition says. Raises: ValueError, with what can be said."""
    words = condition.split()
    if len(words) == 2 and words[0] == "touches":
        return Touches(words[1])
    if words in (["keep"], ["discard"], ["crash"]):
        return Ends(words[0])
    if found := _COMPARISON.fullmatch(condition.strip()):
        name, sign, limit = found.groups()
        if limit == "noise" and name == "gain":
            return Compares(name, sign, None)
        try:
            return Compares(name, sign, float(limit))
        except ValueError:
            pass
    raise ValueError(f"{condition!r} says nothing that can be looked for: {USAGE}")


def of_proposal(condition: str, diff: str) -> str | None:
    """What the condition finds in a proposal's unified diff, before it trains; None where it does not hold."""
    match parse(condition):
        case Touches(what):
            name = re.compile(rf"(?<!\w){re.escape(what)}(?!\w)")
            for line in diff.splitlines():
                header = line.startswith(("--- ", "+++ "))
                if line[:1] in "+-" and line[1:] and name.search(line):
                    return f"it changes {what}" if header else f"it touches {what}: {line[:1]} {line[1:].strip()[:80]}"
    return None


def of_verdict(condition: str, experiment: Experiment, state: StudyState) -> str | None:
    """What the condition finds in an experiment that was just decided; None where it does not hold."""
    match parse(condition):
        case Ends(verdict) if experiment.verdict == verdict:
            return f"{verdict}: {experiment.reason}"
        case Compares(name, sign, limit):
            value = _figure(name, experiment, state)
            if limit is None:
                noise = state.noise
                limit = noise.sigma if noise.freedom else None
            if value is not None and limit is not None and _OPERATORS[sign](value, limit):
                return f"{name} is {value:.6g}"
    return None


def _figure(name: str, experiment: Experiment, state: StudyState) -> float | None:
    trial = experiment.trial
    match name:
        case "gain":
            return None if experiment.delta is None else state.better_by(experiment.delta, 0.0)
        case "changed_lines":
            return float(experiment.added + experiment.removed)
        case "memory_gb":
            return experiment.memory_gb
        case "wall_seconds":
            return trial.wall_seconds if trial else None
        case _:
            return trial.summary.get(name) if trial else None
