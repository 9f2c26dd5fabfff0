"""Whether the machine still is what it was, as re-runs of the incumbent tell. Pure."""

from __future__ import annotations

from statistics import median

from msgspec.structs import replace

from loop.judge import drifted
from loop.noise import Noise
from loop.state import Experiment, StudyState, noise_of

SLOWER = 0.85
"""Of the incumbent's earlier speed: below this share the machine is not what it was."""


def due(state: StudyState, every: int) -> bool:
    """Whether the incumbent should be measured again: it was not for `every` experiments, or was odd the last time."""
    best = state.best
    if not every or best is None or best.trial is None or not best.values:
        return False
    last = best.trial.ended or 0.0
    since = sum(1 for experiment in state.experiments if (experiment.ended or 0.0) > last)
    if since:
        return since >= every
    off, twice = odd(state, best)
    return off is not None and not twice


def odd(state: StudyState, best: Experiment) -> tuple[float | None, bool]:
    """By how many standard errors the incumbent's latest trial is off those before, if that is no luck; and whether
    the one before it was off as well, the same way."""
    values = list(best.values.values())
    if len(values) > 2:
        noise = _noise_before(state, best, 2)
        last, before = (drifted(value, values[:-2], noise) for value in values[:-3:-1])
        if last and before and last * before > 0:
            return last, True
    return drifted(values[-1], values[:-1], _noise_before(state, best, 1)), False


def slower(best: Experiment) -> float | None:
    """The share of its tokens a second that the incumbent's latest trial lacks, where that is more than a little."""
    *earlier, speed = [trial.summary.get("tokens_per_second", 0.0) for trial in best.counted]
    speeds = [other for other in earlier if other]
    if speeds and speed and speed < SLOWER * median(speeds):
        return 1 - speed / median(speeds)
    return None


def _noise_before(state: StudyState, best: Experiment, trials: int) -> Noise:
    """The noise as it was known before the incumbent's latest `trials`: what is odd must not set the measure."""
    earlier = replace(best, trials=best.trials[:-trials])
    decided = [experiment for experiment in state.experiments if experiment.stage == "decided"]
    return noise_of([earlier if experiment.number == best.number else experiment for experiment in decided])
