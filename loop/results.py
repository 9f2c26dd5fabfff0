"""results.tsv: the study as a table, written anew from state; its first five columns are the ecosystem's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from loop.state import Experiment, StudyState

COLUMNS = ("commit", "{metric}", "memory_gb", "status", "description")
MORE_COLUMNS = ("number", "delta", "seconds", "spec", "by", "reason", "trials", "sigma", "audit")


def render(state: StudyState) -> str:
    """A row for each decided experiment. Memory (GiB) and value are 0 where there was none; seconds are wall time.

    `trials`: how many the value is the mean of. `sigma`: the delta's standard error. `audit`: the worst colour.
    """
    return "".join(Table().lines(state))


class Table:
    """Makes the table again and again; a row only where its experiment is another than before."""

    def __init__(self) -> None:
        self._rows: list[tuple[Experiment | None, str]] = []
        self._writing = threading.Lock()

    def lines(self, state: StudyState) -> Iterator[str]:
        """The header and the rows, each with its end of line."""
        yield "\t".join((*COLUMNS, *MORE_COLUMNS)).format(metric=state.metric) + "\n"
        self._rows += [(None, "")] * (len(state.experiments) - len(self._rows))
        for at, experiment in enumerate(state.experiments):
            if self._rows[at][0] is not experiment:
                self._rows[at] = experiment, f"{_row(experiment)}\n" if experiment.verdict is not None else ""
            yield self._rows[at][1]

    def write(self, path: Path, state: StudyState) -> None:
        """Replace the table at `path`. A reader sees the old one or the new one, never a part."""
        part = path.with_suffix(".tsv.part")
        with self._writing:
            with part.open("w", encoding="utf-8") as file:
                file.writelines(self.lines(state))
            part.replace(path)


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
