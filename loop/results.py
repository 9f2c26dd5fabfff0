"""results.tsv: the study as a table, made of its state; its first five columns are the ecosystem's."""

from __future__ import annotations

import operator
import threading
from pathlib import Path

from loop.state import Experiment, StudyState

COLUMNS = ("commit", "{metric}", "memory_gb", "status", "description")
MORE_COLUMNS = ("number", "delta", "seconds", "spec", "by", "reason", "trials", "sigma", "audit")


def render(state: StudyState) -> str:
    """A row for each decided experiment. Memory (GiB) and value are 0 where there was none; seconds are wall time.

    `trials`: how many the value is the mean of. `sigma`: the delta's standard error. `audit`: the worst colour.
    """
    header = "\t".join((*COLUMNS, *MORE_COLUMNS)).format(metric=state.metric)
    return "".join(f"{line}\n" for line in (header, *map(_row, _decided(state))))


class Table:
    """Keeps a table up to its study: new rows are added at its end, and where an earlier one changed it is replaced."""

    def __init__(self) -> None:
        self._rows: list[Experiment] = []
        """What the file shows, as far as nobody else has written to it."""
        self._stamp: tuple[int, int] | None = None
        """The file as it was left; None while it may not be whole."""
        self._writing = threading.Lock()

    def write(self, path: Path, state: StudyState) -> None:
        """Bring the table at `path` up to `state`. Who has it open reads the old one to its end, or whole new rows."""
        with self._writing:
            rows, shown = _decided(state), self._rows
            left, self._stamp = self._stamp, None
            grows = len(rows) >= len(shown) and all(map(operator.is_, rows, shown))
            if grows and left is not None and left == _stamp(path):
                with path.open("a", encoding="utf-8") as file:
                    file.write("".join(f"{_row(experiment)}\n" for experiment in rows[len(shown) :]))
            else:
                part = path.with_suffix(".tsv.part")
                part.write_text(render(state), encoding="utf-8")
                part.replace(path)
            self._rows, self._stamp = rows, _stamp(path)


def _decided(state: StudyState) -> list[Experiment]:
    return [experiment for experiment in state.experiments if experiment.verdict is not None]


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None where there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


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
