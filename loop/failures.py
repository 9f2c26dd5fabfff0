"""The failure bank: what a failed experiment teaches, and which failures are near to what is worked on. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from loop.noise import Noise
from loop.state import BASELINE, Experiment, StudyState

Marks = Mapping[str, float]
"""Names, and how much each counts."""

FOCUS_OVER = 5
"""So many of the latest experiments tell what is worked on."""

LONGEST_DIFF, LONGEST_TAIL, LONGEST_NOTE = 60, 12, 300
"""Lines of a failure's diff and log, and characters of a line of it, that are told."""

_NAME = re.compile(r"[A-Za-z_]\w{2,}")
_TOKEN = re.compile(r"""\w+(?:\.\d+)?|"[^"]*"|'[^']*'|\S""")
_COMMENT = re.compile(r"#.*$")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is on disk of an experiment, as far as it matters to those that follow."""

    diff: str = ""
    curve: tuple[tuple[float, float], ...] = ()
    """Share of the budget, or step where that is not known, and training loss."""
    tail: tuple[str, ...] = ()
    """The last lines of its log."""


def marks(diff: str) -> Counter[str]:
    """The names on the lines that a unified diff changes, and how often each stands there."""
    changed = (line[1:] for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---"))
    return Counter(name for line in changed for name in _NAME.findall(_COMMENT.sub("", line)))


def patch_mark(diff: str) -> str:
    """A fingerprint of a unified diff: equal ones make the same change, wherever it stands and however it is laid out.

    Comments, white space and line breaks do not count, nor what a hunk takes away and puts back.
    """
    told: list[str] = []
    for hunk in re.split(r"^(?=--- |@@ )", diff, flags=re.MULTILINE):
        sides: dict[str, list[str]] = {"-": [], "+": []}
        for line in hunk.splitlines():
            if line.startswith("+++ "):
                told.append(line)
            elif line[:1] in sides and not line.startswith("--- "):
                sides[line[:1]] += _TOKEN.findall(_COMMENT.sub("", line[1:]))
        old, new = sides["-"], sides["+"]
        while old and new and old[-1] == new[-1]:
            old.pop()
            new.pop()
        same = next((at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), None)
        # What is left in front names what was changed, so one token of it stays.
        start = max(0, (min(len(old), len(new)) if same is None else same) - 2)
        if old[start:] != new[start:]:
            told += ["-", *old[start:], "+", *new[start:]]
    return hashlib.sha256("\0".join(told).encode("utf-8", "replace")).hexdigest()[:16]


def focus(state: StudyState, known: Mapping[int, Marks], files: Mapping[str, str], words: Iterable[str]) -> Marks:
    """What is worked on: the names that the latest experiments changed, newer ones counting more, and those names of
    the editable `files` that `words`, a person's notes and refusals, speak of."""
    found: defaultdict[str, float] = defaultdict(float)
    latest = [experiment for experiment in state.experiments if experiment.number in known][-FOCUS_OVER:]
    for age, experiment in enumerate(reversed(latest)):
        for name in known[experiment.number]:
            found[name] += 1 / (1 + age)
    there = {name for text in files.values() for name in _NAME.findall(text)}
    for said in words:
        for name in there & set(_NAME.findall(said)):
            found[name] += 1
    return found


def nearest(state: StudyState, known: Mapping[int, Marks], wanted: Marks, most: int) -> list[Experiment]:
    """The failed experiments nearest to `wanted`, nearest first, newer ones before equally near older ones.

    Nearness is the cosine of tf-idf vectors over changed names (Salton and Buckley 1988): a name that every patch
    touches says little, a rare one much.
    """
    rarity = _rarity(known.values())
    failed = [
        experiment
        for experiment in state.experiments
        if experiment.verdict not in (None, "keep") and experiment.number in known and experiment.agent != BASELINE
    ]
    near = {experiment.number: likeness(wanted, known[experiment.number], rarity) for experiment in failed}
    return sorted(failed, key=lambda one: (-near[one.number], -one.number))[:most]


def likeness(one: Marks, other: Marks, rarity: Mapping[str, float]) -> float:
    """0..1; 1 where both name the same things equally often."""
    a, b = _weighted(one, rarity), _weighted(other, rarity)
    length = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(value * b[name] for name, value in a.items() if name in b) / length if length else 0.0


def _rarity(documents: Iterable[Marks]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    total = 0
    for document in documents:
        counts.update(document.keys())
        total += 1
    return {name: math.log(1 + total / count) for name, count in counts.items()}


def _weighted(known: Marks, rarity: Mapping[str, float]) -> dict[str, float]:
    return {name: math.log(1 + count) * rarity.get(name, 1.0) for name, count in known.items()}


def effect(experiment: Experiment, noise: Noise, *, better_is_lower: bool = True) -> str:
    """How much it moved the metric, and how many standard deviations of two runs' difference that is."""
    if experiment.delta is None:
        return "no value"
    if not experiment.delta:
        return "no change"
    way = "better" if (experiment.delta < 0) == better_is_lower else "worse"
    spread = experiment.sigma or noise.paired
    sigmas = f", {abs(experiment.delta) / spread:.1f} sigma" if spread else ""
    return f"{experiment.delta:+.4f} ({way}{sigmas})"


def shape(curve: Sequence[tuple[float, float]]) -> str:
    """The course of a training loss in words: where from, where to, by when, and whether it still fell."""
    if not curve:
        return "no step was made"
    bad = next((at for at, loss in curve if not math.isfinite(loss)), None)
    if bad is not None:
        return f"the loss was no number any more at {_place(bad)}"
    first, last, low = curve[0][1], curve[-1][1], min(loss for _, loss in curve)
    if len(curve) < 4:
        return f"{len(curve)} steps told, loss {first:.3g} to {last:.3g}"
    middle = curve[len(curve) // 2][1]
    said = f"loss {first:.3f} at first, {middle:.3f} half way, {last:.3f} at {_place(curve[-1][0])}"
    if last > first:
        return f"{said}: it diverged"
    if last > low + 0.1 * (first - low):
        at = next(place for place, loss in curve if loss == low)
        return f"{said}: it rose again from {low:.3f} at {_place(at)}"
    tail = [loss for _, loss in curve[-max(2, len(curve) // 5) :]]
    return f"{said}: " + ("still falling" if tail[0] - tail[-1] > 0.03 * (first - last) else "flat at its end")


def _place(at: float) -> str:
    return f"{100 * at:.0f} % of the budget" if at <= 1 else f"step {at:.0f}"


def tell(experiment: Experiment, case: Case, noise: Noise, *, better_is_lower: bool) -> str:
    """A past experiment in full. What others wrote stands behind `|`: diff, log."""
    trial = experiment.trial
    lines = [
        f"{experiment.number:04d} {experiment.verdict or experiment.stage}: {_short(experiment.hypothesis, 600)}",
        f"expected: {_short(experiment.expected_effect)}" if experiment.expected_effect else "",
        f"effect: {effect(experiment, noise, better_is_lower=better_is_lower)}",
        f"why: {_short(experiment.reason)}" if experiment.reason else "",
        *(f"noted by a person: {_short(note)}" for note in experiment.notes),
        f"curve: {shape(case.curve)}" if trial else "",
        *_quoted("diff", case.diff.splitlines(), LONGEST_DIFF, first=True),
    ]
    if experiment.verdict == "crash" or (trial and trial.outcome not in (None, "ok")):
        lines += _quoted("its last lines", case.tail, LONGEST_TAIL)
    return "\n".join(line for line in lines if line)


def _quoted(title: str, lines: Sequence[str], most: int, *, first: bool = False) -> list[str]:
    if not lines:
        return []
    shown = lines[:most] if first else lines[-most:]
    left = len(lines) - len(shown)
    more = f" ({left} more lines)" if left else ""
    return [f"{title}{more}:", *quote(shown)]


def quote(lines: Iterable[str]) -> list[str]:
    """Foreign lines, marked as data: each begins with `| `, so that none can pass for a heading or an order."""
    return [f"| {line if len(line) <= LONGEST_NOTE else line[:LONGEST_NOTE] + '…'}" for line in lines]


def _short(text: str, limit: int = LONGEST_NOTE) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
