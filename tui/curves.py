"""What the chart draws, as numbers: every experiment with its fate, and a run's loss against the incumbent's. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from loop.events import Step, Verdict
from loop.state import StudyState
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


def run(steps: Sequence[Step], rival: Sequence[Step]) -> Run | None:
    """None before the first step."""
    if not any(math.isfinite(step.loss) for step in steps):
        return None
    shares = all(step.progress is not None for step in (*steps, *rival))
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
