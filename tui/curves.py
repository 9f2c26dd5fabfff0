"""What the chart draws, as numbers: every experiment with its fate, and a run's loss against the incumbent's. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec

from loop.events import Step, Verdict
from loop.state import BASELINE, StudyState
from tui.look import thin_out

POINTS = 240
"""Points of a loss curve; more than a chart has columns."""

BAND_DOTS = 60
"""Dots of each side of the band; about as many as a chart has columns."""

LEAST_WIDTH = 10
"""Experiments the chart has room for from the start."""

Points = list[tuple[float, float]]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All experiments by verdict, `(number, value)` each; what lies beyond `low`..`high` is drawn at that edge."""

    points: dict[Verdict, Points]
    stairs: Points
    """The incumbent's value over the numbers, corner by corner."""
    reach: float
    """How far a trial of an equal script may be from the incumbent by luck; 0: unknown, or there is none."""
    band: Points
    """Both ends of that reach, dot by dot."""
    baseline: float
    low: float
    high: float
    last: int


def history(state: StudyState, reach: float = 0.0) -> History | None:
    """None before the baseline is measured. `reach`: how far a trial may be from the incumbent by luck."""
    baseline = state.baseline
    if baseline is None or baseline.value is None or not math.isfinite(baseline.value):
        return None
    values = [e.value for e in state.experiments if e.value is not None and math.isfinite(e.value)]
    low, high = _limits(values, baseline.value, worse_is_high=state.direction == "minimize")
    if reach:
        kept = [
            e.value for e in state.experiments if e.verdict == "keep" and e.value is not None and math.isfinite(e.value)
        ]
        low, high = min(low, min(kept) - 1.1 * reach), max(high, max(kept) + 1.1 * reach)
    worst = high if state.direction == "minimize" else low
    points: dict[Verdict, Points] = {"keep": [], "discard": [], "crash": [], "reject": []}
    stairs: Points = []
    for experiment in state.experiments:
        if experiment.verdict is None:
            continue
        measured = experiment.value
        # What has no value still happened: it stands at the worse edge.
        value = worst if measured is None or not math.isfinite(measured) else min(high, max(low, measured))
        points[experiment.verdict].append((experiment.number, value))
        if experiment.verdict == "keep" and measured is not None:
            if stairs:
                stairs.append((experiment.number, stairs[-1][1]))
            stairs.append((experiment.number, value))
    last = max(LEAST_WIDTH, len(state.experiments) - 1)
    if stairs:
        stairs.append((last, stairs[-1][1]))
    band = _band(stairs, reach, last) if reach else []
    return History(
        points=points, stairs=stairs, reach=reach, band=band, baseline=baseline.value, low=low, high=high, last=last
    )


def _band(stairs: Points, reach: float, last: int) -> Points:
    dots: Points = []
    for dot in range(BAND_DOTS + 1):
        x = last * dot / BAND_DOTS
        if levels := [level for corner, level in stairs if corner <= x]:
            dots += [(x, levels[-1] - reach), (x, levels[-1] + reach)]
    return dots


def _limits(values: Sequence[float], baseline: float, *, worse_is_high: bool) -> tuple[float, float]:
    """From the best value to a little beyond the baseline and most others: one that diverged must not flatten all."""
    ordered = sorted(values, reverse=not worse_is_high)
    best, most = ordered[0], ordered[int(0.8 * (len(ordered) - 1))]
    worst = max(baseline, most) if worse_is_high else min(baseline, most)
    reach = abs(worst - best) or abs(baseline) * 0.01 or 1.0
    low, high = min(best, worst), max(best, worst)
    return low - 0.08 * reach, high + 0.15 * reach


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The running trial's loss and the incumbent's, over the share of the budget in percent (or over steps)."""

    mine: Points
    rival: Points
    axis: str
    low: float
    high: float
    last: float


def run(steps: Sequence[Step], rival: Sequence[Step], *, over_steps: bool = False) -> Run | None:
    """None before the first step."""
    if not any(math.isfinite(step.loss) for step in steps):
        return None
    shares = not over_steps and all(step.progress is not None for step in (*steps, *rival))
    mine, other = _curve(steps, shares=shares), _curve(rival, shares=shares)
    losses = [loss for _, loss in (*mine, *other)]
    low = min(losses)
    # The fall of the first steps says little and would flatten the rest.
    high = max(sorted(losses)[int(0.9 * (len(losses) - 1))], mine[-1][1])
    reach = high - low or abs(low) * 0.01 or 1.0
    low, high = low - 0.05 * reach, high + 0.05 * reach
    last = 100.0 if shares else max(x for x, _ in (*mine, *other, (1.0, 0.0)))

    def clipped(curve: Points) -> Points:
        return [(x, min(high, loss)) for x, loss in curve]

    axis = "% of the budget" if shares else "step"
    return Run(mine=clipped(mine), rival=clipped(other), axis=axis, low=low, high=high, last=last)


def _curve(steps: Sequence[Step], *, shares: bool) -> Points:
    finite = [step for step in steps if math.isfinite(step.loss)]
    xs = thin_out([100 * (step.progress or 0.0) if shares else float(step.step) for step in finite], POINTS)
    return list(zip(xs, thin_out([step.loss for step in finite], POINTS), strict=True))


NEAR = 0.05
"""Share of the way so far over which two losses are averaged, that the noise of single steps does not count."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """How much lower the running trial's loss is than the incumbent's (positive: ahead); None where that is unknown."""

    at_time: float | None = None
    at_step: float | None = None


def gap(steps: Sequence[Step], rival: Sequence[Step]) -> Gap:
    """At the same share of the budget, and at the same step. Both sequences are in the order of training."""
    if not steps or not rival:
        return Gap()
    shares = steps[-1].progress is not None and rival[-1].progress is not None
    return Gap(
        at_time=_ahead(steps, rival, lambda step: step.progress or 0.0 if shares else step.time),
        at_step=_ahead(steps, rival, lambda step: float(step.step)),
    )


def _ahead(steps: Sequence[Step], rival: Sequence[Step], place: Callable[[Step], float]) -> float | None:
    here = place(steps[-1])
    own = _mean(steps, (1 - NEAR) * here, here, place)
    its = _mean(rival, (1 - NEAR) * here, here, place)
    return None if own is None or its is None or place(rival[-1]) < (1 - NEAR) * here else its - own


def _mean(steps: Sequence[Step], low: float, high: float, place: Callable[[Step], float]) -> float | None:
    """The mean loss between two places, or the nearest one's."""
    first, last = bisect_left(steps, low, key=place), bisect_right(steps, high, key=place)
    losses = [step.loss for step in steps[max(0, min(first, last - 1)) : last] if math.isfinite(step.loss)]
    return fmean(losses) if losses else None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one version of program.md."""

    spec: int
    tried: int
    kept: int
    gain: float
    """What its kept experiments gained over the incumbents before them, in the metric's unit."""


def program(state: StudyState) -> list[Version]:
    """Keeps and gain of every version of program.md that an experiment was proposed under, and of the one in force."""
    tried: dict[int, list[float | None]] = {state.spec: []} if state.spec else {}
    incumbent: float | None = None
    for experiment in state.experiments:
        if experiment.verdict is None:
            continue
        kept = experiment.verdict == "keep" and experiment.value is not None
        if experiment.agent != BASELINE:
            gained = None
            if kept and incumbent is not None and experiment.value is not None:
                gained = state.better_by(experiment.value, incumbent)
            tried.setdefault(experiment.spec, []).append(gained if kept else None)
        if kept:
            incumbent = experiment.value
    return [
        Version(
            spec=spec, tried=len(gains), kept=sum(gain is not None for gain in gains), gain=sum(g or 0.0 for g in gains)
        )
        for spec, gains in sorted(tried.items())
    ]
