"""Whether a score counts: what the engine itself can tell of a trial, and what the study's audit command printed. Pure.

The command (`python -m trainer.audit` here) measures the model that a trial handed over: in a process of its own, with
the files as the study found them. It prints the metric and other `key: number` lines, one `audit: green`, `amber` or
`red`, and a `finding: ...` line for each remark. The engine adds what only it knows: how much work the trial did by the
engine's own clock, whether the frozen files are still what they were, what the script itself claimed, and whether the
gain holds on text that nothing is chosen by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

import msgspec

from loop.events import COLOURS, Colour
from loop.state import Trial

CLAIM = 1e-3
"""By how much a script's own number may differ from what was measured: its rounding, and another order of sums."""
OVERHEAD = {"amber": (1.25, 0.05), "red": (1.5, 0.15)}
"""Work beside the budget that is odd, and that does not count: so many times the baseline's, and so much of the budget
on top."""
HOLDOUT = {"amber": (0.5, 0.005), "red": (0.1, 0.01)}
"""The share of a gain that should show on the holdout, and how far below that it may fall, in the metric's unit."""
HOLDOUT_KEY = "holdout_bpb"


class Finding(msgspec.Struct, frozen=True):
    colour: Colour
    text: str


class Report(msgspec.Struct, frozen=True):
    """What an audit command printed. `colour` None: it came to no verdict."""

    colour: Colour | None
    value: float | None
    holdout: float | None
    findings: tuple[str, ...]


def read(lines: Iterable[str], summary: Mapping[str, Sequence[float]], metric: str) -> Report:
    """An audit's report from the lines and numbers of its output."""
    colours, findings = [], []
    for line in lines:
        if found := re.fullmatch(r"audit:\s+(green|amber|red)", line.strip()):
            colours.append(found[1])
        elif found := re.fullmatch(r"finding:\s+(.+)", line.strip()):
            findings.append(found[1])
    colour = next((known for known in COLOURS if colours == [known]), None)
    values, holdouts = summary.get(metric, ()), summary.get(HOLDOUT_KEY, ())
    return Report(
        colour=colour,
        value=values[-1] if values else None,
        holdout=holdouts[-1] if holdouts else None,
        findings=tuple(findings),
    )


def worst(report: Colour, findings: Iterable[Finding]) -> Colour:
    """The colour of a score with this report and these findings."""
    return max((report, *(finding.colour for finding in findings)), key=COLOURS.index)


def own_findings(
    trial: Trial,
    report: Report,
    *,
    baseline: Sequence[Trial],
    tampered: Sequence[str],
    direction: Literal["minimize", "maximize"],
) -> list[Finding]:
    """What the engine has against a trial. `tampered`: frozen files that the trial found or made other than they were.

    `baseline` holds the baseline's trials; while that is being measured there is nothing to compare with.
    """
    found = [Finding("red", f"the frozen file {path} was changed") for path in tampered]
    if report.value is not None and trial.claimed is not None and abs(report.value - trial.claimed) > CLAIM:
        found.append(Finding("red", f"it printed {trial.claimed:.6f}, and {report.value:.6f} was measured"))
    measured = [earlier for earlier in baseline if earlier.counts]
    if measured:
        found += _overwork(trial, measured)
        found += _held_out(report, measured, sign=1.0 if direction == "minimize" else -1.0)
    return found


def work(trial: Trial) -> float:
    """Seconds a trial worked by the engine's clock: of CPU time on a CPU, elsewhere of wall clock without pauses."""
    return trial.cpu_seconds if trial.device == "cpu" else trial.wall_seconds - trial.paused_seconds


def _overwork(trial: Trial, baseline: Sequence[Trial]) -> list[Finding]:
    """The budget is held by a clock in the script's own process; this one is not."""
    budget = trial.budget
    usual = max(0.0, fmean(map(work, baseline)) - budget)
    beside = work(trial) - budget
    for colour in ("red", "amber"):
        times, share = OVERHEAD[colour]
        if beside > times * usual + share * budget:
            kind = "CPU time" if trial.device == "cpu" else "wall clock"
            text = f"it worked {beside:.1f} s of {kind} beside its budget of {budget:g} s; the baseline, {usual:.1f} s"
            return [Finding(colour, text)]
    return []


def _held_out(report: Report, baseline: Sequence[Trial], *, sign: float) -> list[Finding]:
    both = [(trial.value, trial.holdout) for trial in baseline if trial.value is not None and trial.holdout is not None]
    if not both or report.value is None or report.holdout is None:
        return []
    gain = sign * (fmean(value for value, _ in both) - report.value)
    held = sign * (fmean(holdout for _, holdout in both) - report.holdout)
    for colour in ("red", "amber"):
        share, slack = HOLDOUT[colour]
        if gain > 0 and held < share * gain - slack:
            return [Finding(colour, f"of its gain of {gain:.4f} only {held:.4f} shows on the holdout")]
    return []
