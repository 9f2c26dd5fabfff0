"""All experiments, newest first or sorted by a column. The cursor stays on its experiment; on the newest it goes on to
the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from loop.state import Experiment, StudyState
from tui import look, words
from tui.panes.pane import Pane, Words
from tui.panes.table import Column, Table
from tui.view import Topic, View

COLUMNS = (
    Column(" #", 6),
    Column("commit", 8, spare=1),
    Column("value", 8, right=True),
    Column(" audit", 6),
    Column("delta", 9, right=True),
    Column(" sigma", 7, spare=3),
    Column("GiB", 6, right=True, spare=2),
    Column("time", 8, right=True),
    Column("  status", 13),
    Column("what", 20),
)
"""The last one takes what is left of the width; what no experiment has an entry for is no column."""

VALUE, AUDIT, SIGMA = 2, 3, 5

Key = Callable[[Experiment], float | str | None]
SORTS: dict[str, tuple[int, Key]] = {
    "newest": (0, lambda experiment: -experiment.number),
    "value": (VALUE, lambda experiment: experiment.mean if experiment.verdict is None else experiment.value),
    "delta": (4, lambda experiment: experiment.delta),
    "memory": (6, lambda experiment: experiment.memory_gb),
    "time": (7, lambda experiment: experiment.trial.wall_seconds if experiment.trial else None),
    "status": (8, lambda experiment: experiment.verdict or ""),
}
"""By name: the column, and what is compared, the smallest first; what has none comes last."""


class ExperimentsPane(Pane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("state",))
    number = 5
    label = "experiments"
    finds = "filter by words of row, hypothesis, reason"

    DEFAULT_CSS = """
    ExperimentsPane { padding: 0; }
    ExperimentsPane #awaited { padding: 0 1; color: $text-muted; }
    ExperimentsPane.-filled #awaited { display: none; }
    ExperimentsPane Table { display: none; }
    ExperimentsPane.-filled Table { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "sort(1)", show=False),
        Binding("O", "reverse", show=False),
    ]

    class Opened(Message):
        """A person wants to see experiment `number`."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class Pointed(Message):
        """The cursor came to another experiment."""

    class Arranged(Message):
        """A person sorted the table anew."""

    def __init__(self) -> None:
        super().__init__()
        self.sort, self.reverse = "newest", False
        self._needle = ""
        self._followed = False
        """Whether the newest was followed before the filter."""
        self._state = StudyState()
        self._drawn: list[Experiment] = []
        self._columns: set[int] = set()
        """Those that some experiment has an entry for, of the two that may have none."""

    def compose(self) -> ComposeResult:
        yield Words(id="awaited")
        yield Table()

    def on_mount(self) -> None:
        super().on_mount()
        said = "the baseline comes first; every experiment will be a row here"
        self.query_one("#awaited", Words).say(Text(said, look.FAINT), layout=True)

    @property
    def target(self) -> Table:
        return self.query_one(Table)

    @property
    def pointed(self) -> int | None:
        """The number of the experiment under the cursor."""
        return self.target.pointed

    @property
    def needle(self) -> str:
        return self._needle

    @property
    def following(self) -> bool:
        return self.sort == "newest" and not self.reverse and self.target.cursor == 0

    def show(self, view: View) -> None:
        state, table = view.state, self.target
        experiments, self._state = state.experiments, state
        self.set_class(bool(experiments), "-filled")
        changed = [at for at, one in enumerate(experiments) if at >= len(self._drawn) or one is not self._drawn[at]]
        # How the latest are called hangs on more than on themselves.
        changed += range(max(0, len(experiments) - 2), len(experiments))
        self._drawn = list(experiments)
        self._lay_out(changed)
        table.fill(self._rows(), self._row, follow=self.following or table.pointed is None)
        table.forget(changed)
        self._tell()

    def _rows(self) -> Sequence[int]:
        experiments = self._drawn
        if self.sort == "newest" and not self._needle:
            return range(len(experiments)) if self.reverse else range(len(experiments) - 1, -1, -1)
        wanted = self._needle.casefold().split()
        found = [one for one in experiments if not wanted or _holds(one, self._state, wanted)]
        key = SORTS[self.sort][1]
        known = [(value, one.number) for one in found if (value := key(one)) is not None and value == value]
        known.sort(key=lambda pair: (pair[0], -pair[1]), reverse=self.reverse)
        there = {number for _, number in known}
        return [number for _, number in known] + [one.number for one in reversed(found) if one.number not in there]

    def _row(self, number: int) -> Sequence[Text]:
        experiment = self._drawn[number]
        return _styled(experiment, _cells(experiment, self._state))

    def _lay_out(self, changed: Sequence[int]) -> None:
        for at in changed:
            if self._drawn[at].colour or len(self._drawn[at].values) > 1:
                self._columns.add(AUDIT)
            if words.sigmas(self._drawn[at]):
                self._columns.add(SIGMA)
        titles = {at: column.title for at, column in enumerate(COLUMNS)}
        titles[VALUE] = words.unit(self._state.metric)[: COLUMNS[VALUE].width - 2]
        if self.sort != "newest" or self.reverse:
            at = SORTS[self.sort][0]
            titles[at] = titles[at].rstrip() + ("▲" if self.reverse else "▼")
        widths = _fitting(self.content_size.width, self._columns)
        self.target.lay_out({at: (COLUMNS[at], width) for at, width in widths.items()}, titles)

    def _tell(self) -> None:
        shown, best = len(self.target.rows), self._state.best
        said = [f"incumbent {words.name(best.number)}"] if best else []
        if self._needle:
            said.append(f"/{self._needle}  {shown} of {len(self._drawn)}")
        if self.sort != "newest" or self.reverse:
            said.append(f"by {self.sort}{', reversed' if self.reverse else ''}")
        elif self._drawn:
            said.append("▼ follow" if self.following else "home follows")
        self.subtitle(" · ".join(said))

    def find(self, needle: str) -> None:
        if needle != self._needle:
            if not self._needle:
                self._followed = self.following
            self._needle = needle
            # Who has not moved in what he found goes on as before.
            self._arrange(follow=not needle and self._followed and self.target.cursor == 0)

    def sort_by(self, sort: str, *, reverse: bool = False) -> None:
        self.sort, self.reverse = (sort if sort in SORTS else "newest"), reverse
        self._arrange()

    def action_sort(self, by: int) -> None:
        names = list(SORTS)
        self.sort_by(names[(names.index(self.sort) + by) % len(names)])
        self.post_message(self.Arranged())

    def action_reverse(self) -> None:
        self.sort_by(self.sort, reverse=not self.reverse)
        self.post_message(self.Arranged())

    def _arrange(self, *, follow: bool = False) -> None:
        if self._drawn:
            self._lay_out(())
            self.target.fill(self._rows(), self._row, follow=follow)
            self.target.forget()
            self._tell()

    def restyle(self) -> None:
        super().restyle()
        self.target.forget()

    def copied(self, view: View) -> tuple[str, str]:
        if self.pointed is None:
            return "", "the experiment"
        experiment = view.state.experiments[self.pointed]
        return "\t".join(cell.strip() for cell in _cells(experiment, view.state)), f"the row of {self.pointed:04d}"

    def on_resize(self, event: events.Resize) -> None:
        self.stale = True

    @on(Table.Opened)
    def _open(self) -> None:
        if self.pointed is not None:
            self.post_message(self.Opened(self.pointed))

    @on(Table.Moved)
    def _point(self) -> None:
        self._tell()
        self.post_message(self.Pointed())

    @on(Table.Sorted)
    def _sort_by_click(self, clicked: Table.Sorted) -> None:
        for name, (column, _) in SORTS.items():
            if column == clicked.column:
                self.sort_by(name, reverse=name == self.sort and not self.reverse)
                self.post_message(self.Arranged())


def _holds(experiment: Experiment, state: StudyState, wanted: Sequence[str]) -> bool:
    said = " ".join(
        (*_cells(experiment, state), experiment.hypothesis, experiment.reason, *experiment.notes)
    ).casefold()
    return all(word in said for word in wanted)


def _fitting(width: int, entries: set[int]) -> dict[int, int]:
    """The columns for a table of this width, by their place in `COLUMNS`, with the width of each."""
    widths = {at: column.width for at, column in enumerate(COLUMNS) if at not in (AUDIT, SIGMA) or at in entries}
    for at in sorted((at for at in widths if COLUMNS[at].spare), key=lambda at: COLUMNS[at].spare):
        if sum(widths.values()) < width:
            break
        del widths[at]
    last = len(COLUMNS) - 1
    widths[last] += max(0, width - 1 - sum(widths.values()))
    return widths


def _cells(experiment: Experiment, state: StudyState) -> tuple[str, ...]:
    trial = experiment.trial
    pending = experiment.verdict is None
    nothing = "…" if pending else words.NOTHING
    memory = experiment.memory_gb
    value = experiment.mean if pending else experiment.value
    mark = words.MARKS[experiment.colour] if experiment.colour else ""
    count = f"×{len(experiment.values)}" if len(experiment.values) > 1 else ""
    return (
        words.name(experiment.number),
        (experiment.commit or nothing)[:7],
        nothing if value is None else words.value(value),
        f"{mark or ' '} {count}".rstrip(),
        nothing if experiment.delta is None else words.delta(experiment.delta),
        words.sigmas(experiment),
        nothing if memory is None else f"{memory:.1f}",
        nothing if trial is None or trial.ended is None else words.duration(trial.wall_seconds),
        words.status(experiment, state),
        words.what(experiment),
    )


def _styled(experiment: Experiment, cells: tuple[str, ...]) -> list[Text]:
    verdict = experiment.verdict
    status_style = look.status(verdict)
    plain = look.INK if verdict in (None, "keep") else look.FAINT
    audit = look.audit(experiment.colour)
    delta = _delta_style(experiment)
    styles = [plain, look.FAINT, plain, audit, delta, delta, look.FAINT, look.FAINT, status_style, plain]
    return [Text(cell, style, no_wrap=True, overflow="ellipsis") for cell, style in zip(cells, styles, strict=True)]


def _delta_style(experiment: Experiment) -> str:
    return look.GREEN if experiment.verdict == "keep" else look.FAINT
