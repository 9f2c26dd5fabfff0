"""What a study has on disk of its experiments, read back for those that follow."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import msgspec

from loop.failures import Case, marks, patch_mark
from loop.state import BASELINE, Experiment, StudyState
from loop.study import Study
from loop.trials.output import clean

TAIL = 16 * 1024
"""Bytes of a log that its last lines are taken from."""

POINTS = 200
"""Points of a curve at most."""


class _Point(msgspec.Struct):
    """Of a line of metrics, what makes a curve; a loss that is no number was written as null."""

    step: int
    loss: float | None
    progress: float | None = None


class Archive:
    """Reads what experiments left, and what it has to compare all of them by once only."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._marks: dict[int, tuple[str | None, Counter[str]]] = {}
        """By number, of the commit that it had."""
        self._patches: dict[str | None, str] = {}
        """By commit, of those that the journal has no fingerprint of."""

    def marks(self, state: StudyState) -> dict[int, Counter[str]]:
        """The names that each experiment changed that was decided."""
        for one in _decided(state):
            if self._marks.get(one.number, ("", None))[0] != one.commit:
                self._marks[one.number] = one.commit, marks(self.diff(one.number))
        return {number: found for number, (_, found) in self._marks.items() if found}

    def latest(self, state: StudyState, patch: str) -> Experiment | None:
        """The latest of what was decided that made the patch with this fingerprint."""
        return next((one for one in reversed(_decided(state)) if self._patch(one) == patch), None)

    def _patch(self, experiment: Experiment) -> str:
        if experiment.patch or experiment.agent == BASELINE:
            return experiment.patch
        if experiment.commit not in self._patches:
            self._patches[experiment.commit] = patch_mark(self.diff(experiment.number))
        return self._patches[experiment.commit]

    def diff(self, number: int) -> str:
        return _text(self._study.diff(number))

    def case(self, experiment: Experiment) -> Case:
        """What is there of an experiment, cleaned of control sequences."""
        number, trial = experiment.number, experiment.trial
        if trial is None:
            return Case(diff=clean(self.diff(number)))
        return Case(
            diff=clean(self.diff(number)),
            curve=_curve(self._study.metrics(number, trial.trial)),
            tail=tuple(_tail(self._study.log(number, trial.trial))),
        )


def _decided(state: StudyState) -> list[Experiment]:
    return [one for one in state.experiments if one.stage == "decided" and one.commit is not None]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - TAIL))
            lines = clean(log.read().decode("utf-8", "replace").replace("\r", "\n")).splitlines()
    except OSError:
        return []
    return [line.rstrip() for line in (lines[1:] if size > TAIL else lines) if line.strip()]


def _curve(path: Path) -> tuple[tuple[float, float], ...]:
    points = []
    for line in _text(path).splitlines():
        try:
            point = msgspec.json.decode(line, type=_Point)
        except msgspec.MsgspecError:
            continue  # The last line of a run that was ended, or somebody else's.
        place = float(point.step) if point.progress is None else point.progress
        points.append((place, math.nan if point.loss is None else point.loss))
    stride = max(1, len(points) // POINTS)
    return tuple(points[::stride] + (points[-1:] if (len(points) - 1) % stride else []))
