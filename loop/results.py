"""results.tsv: the study as a table, written anew from state; its first five columns are the ecosystem's."""

from __future__ import annotations

from pathlib import Path

from loop.state import Experiment, StudyState

COLUMNS = ("commit", "{metric}", "memory_gb", "status", "description")
MORE_COLUMNS = ("number", "delta", "seconds", "spec", "by", "reason", "trials", "sigma", "audit")


def render(state: StudyState) -> str:
    """A row for each decided experiment. Memory (GiB) and value are 0 where there was none; seconds are wall time.

    `trials`: how many the value is the mean of. `sigma`: the delta's standard error. `audit`: the worst colour.
    """
    header = "\t".join((*COLUMNS, *MORE_COLUMNS)).format(metric=state.metric)
    rows = [_row(experiment) for experiment in state.experiments if experiment.verdict is not None]
    return "\n".join([header, *rows]) + "\n"


def _row(experiment: Experiment) -> str:
    trial = experiment.trial
    cells = (
        (experiment.commit or "-" * 7)[:7],
        f"{experiment.value or 0.0:.6f}",
        f"{experiment.memory_gb or 0.0:.1f}",
        experiment.verdict or "",
        experiment.hypothesis,
        str(experiment.number),
        "" if experiment.delta is None else f"{experiment.delta:+.6f}",
        f"{trial.wall_seconds:.1f}" if trial else "0.0",
        str(experiment.spec),
        experiment.by,
        experiment.reason,
        str(len(experiment.values)),
        "" if experiment.sigma is None else f"{experiment.sigma:.6f}",
        experiment.colour or "",
    )
    return "\t".join(" ".join(cell.split()) for cell in cells)


def write(path: Path, state: StudyState) -> None:
    """Replace the table at `path`. A reader sees the old one or the new one, never a part."""
    part = path.with_suffix(".tsv.part")
    part.write_text(render(state), encoding="utf-8")
    part.replace(path)
