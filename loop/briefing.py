"""From state to what the agent is told before it proposes, failures included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from loop.state import Experiment, StudyState


class Briefing(msgspec.Struct, frozen=True, kw_only=True):
    """All an agent may know before experiment `number`. Files are path to text."""

    number: int
    metric: str
    direction: Literal["minimize", "maximize"]
    budget: float
    device: str
    program: str
    incumbent: Experiment | None
    files: dict[str, str]
    """The incumbent's editable files."""
    context: dict[str, str]
    """The frozen files, to read."""
    baseline_files: dict[str, str] = {}
    """The editable files as the baseline had them."""
    history: tuple[Experiment, ...]
    """Every decided experiment in order, the baseline first."""
    notes: tuple[str, ...] = ()
    feedback: tuple[str, ...] = ()
    """Why this number's earlier proposals were refused, oldest first."""


def brief(
    state: StudyState,
    *,
    number: int,
    program: str,
    files: Mapping[str, str],
    context: Mapping[str, str],
    baseline_files: Mapping[str, str],
    feedback: Sequence[str],
) -> Briefing:
    """The briefing for experiment `number`, from the state and the texts that the state only names."""
    return Briefing(
        number=number,
        metric=state.metric,
        direction=state.direction,
        budget=state.budget,
        device=state.device,
        program=program,
        incumbent=state.best,
        files=dict(files),
        context=dict(context),
        baseline_files=dict(baseline_files),
        history=tuple(experiment for experiment in state.experiments if experiment.stage == "decided"),
        notes=tuple(state.notes),
        feedback=tuple(feedback),
    )
