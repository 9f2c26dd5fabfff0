"""Measurements -> verdict. Pure. For now the plain rule: better than the incumbent by at least a stated margin."""

from __future__ import annotations

from typing import Literal

import msgspec

from loop.events import Verdict


class Judgement(msgspec.Struct, frozen=True):
    """A verdict with its reason in words. `delta` is value minus the incumbent's, in the metric's unit."""

    verdict: Verdict
    reason: str
    delta: float | None = None


def judge(
    value: float | None,
    incumbent: float | None,
    *,
    direction: Literal["minimize", "maximize"],
    margin: float = 0.0,
    failure: str = "",
) -> Judgement:
    """What becomes of an experiment measured at `value`; None: it came to no value, for the reason `failure`.

    The first measured one is the baseline and is kept. `margin` is in the metric's unit.
    """
    if value is None:
        return Judgement("crash", failure or "it came to no value")
    if incumbent is None:
        return Judgement("keep", "the baseline")
    delta = value - incumbent
    gain = -delta if direction == "minimize" else delta
    if gain <= 0:
        how = "equal to" if gain == 0 else f"{-gain:.6f} worse than"
        return Judgement("discard", f"{how} {incumbent:.6f}", delta)
    if gain < margin:
        return Judgement("discard", f"{gain:.6f} better than {incumbent:.6f}, less than the margin {margin:g}", delta)
    return Judgement("keep", f"{gain:.6f} better than {incumbent:.6f}", delta)
