"""All experiments, newest first. The cursor stays on its experiment; on the first row it stays with the newest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import DataTable

from loop.state import Experiment, StudyState
from tui import look, words
from tui.panes.pane import Pane, Words
from tui.view import Topic, View


class Column(NamedTuple):
    title: str
    width: int
    right: bool = False
    spare: int = 0
    """Where the last column would have no room, the lowest of these is left out first; 0 stays."""


COLUMNS = (
    Column(" #", 6),
    Column("commit", 8, spare=1),
    Column("bpb", 8, right=True),
    Column(" audit", 6),
    Column("delta", 9, right=True),
    Column(" sigma", 7, spare=3),
    Column("GiB", 6, right=True, spare=2),
    Column("time", 8, right=True),
    Column("  status", 13),
    Column("what", 16),
)
"""The last one takes what is left of the width; what no experiment has an entry for is no column."""


class Table(DataTable[Text]):
    """Arrow keys only: the letters are the cockpit's."""

    DEFAULT_CSS = """
    Table { height: 1fr; background: transparent; scrollbar-size-horizontal: 0; scrollbar-size-vertical: 1; }
    Table, Table:hover { scrollbar-background: $background; scrollbar-color: $panel-lighten-2; }
    Table { scrollbar-background-hover: $background; scrollbar-background-active: $background; }
    Table > .datatable--header { background: transparent; color: $secondary; text-style: none; }
    Table > .datatable--header-cursor, Table > .datatable--header-hover { background: transparent; color: $secondary; }
    Table > .datatable--cursor { background: $panel; }
    Table:focus > .datatable--cursor { background: $primary 25%; }
    Table:nocolor > .datatable--cursor { text-style: underline; }
    Table:nocolor:focus > .datatable--cursor { text-style: reverse; }
    """


class ExperimentsPane(Pane):
    shows: ClassVar[frozenset[Topic]] = frozenset(("state",))
    number = 5
    label = "experiments"

    DEFAULT_CSS = """
    ExperimentsPane { padding: 0; }
    ExperimentsPane #awaited { padding: 0 1; color: $secondary; }
    ExperimentsPane.-filled #awaited { display: none; }
    ExperimentsPane Table { display: none; }
    ExperimentsPane.-filled Table { display: block; }
    """

    class Opened(Message):
        """A person wants to see experiment `number`."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class Pointed(Message):
        """The cursor came to another experiment."""

    def __init__(self) -> None:
        super().__init__()
        self._cells: list[tuple[str, ...]] = []
        self._drawn_to = 0

    def compose(self) -> ComposeResult:
        yield Words(id="awaited")
        yield Table(cursor_type="row", cell_padding=0, zebra_stripes=False)

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
        row = self.target.cursor_row
        return len(self._cells) - 1 - row if 0 <= row < len(self._cells) else None

    def show(self, view: View) -> None:
        experiments = view.state.experiments
        cells = [_cells(experiment, view.state) for experiment in reversed(experiments)]
        width = self.content_size.width
        if cells == self._cells and width == self._drawn_to:
            return
        table, pointed = self.target, self.pointed
        follows = table.cursor_row == 0 or pointed is None
        self.set_class(bool(cells), "-filled")
        scrolled = table.scroll_y + (0 if follows else len(cells) - len(self._cells))
        table.clear(columns=True)
        widths = _fitting(width, cells)
        for at, room in widths.items():
            title = COLUMNS[at].title
            table.add_column(Text(title.rjust(room) if COLUMNS[at].right else title), width=room)
        for experiment, row in zip(reversed(experiments), cells, strict=True):
            styled = _styled(experiment, row)
            table.add_row(*(styled[at] for at in widths))
        self._cells, self._drawn_to = cells, width
        if pointed is not None and not follows:
            table.move_cursor(row=len(cells) - 1 - pointed, animate=False, scroll=False)
            table.scroll_to(y=scrolled, animate=False)
        best = view.state.best
        self.subtitle(f"incumbent {words.name(best.number)}" if best else "")

    def on_resize(self, event: events.Resize) -> None:
        self.stale = True

    @on(DataTable.RowSelected)
    def _open(self, selected: DataTable.RowSelected) -> None:
        selected.stop()
        if self.pointed is not None:
            self.post_message(self.Opened(self.pointed))

    @on(DataTable.RowHighlighted)
    def _point(self, highlighted: DataTable.RowHighlighted) -> None:
        highlighted.stop()
        self.post_message(self.Pointed())


def _fitting(width: int, rows: Sequence[Sequence[str]]) -> dict[int, int]:
    """The columns for a table of this width, by their place in `COLUMNS`, with the width of each."""
    widths = {at: column.width for at, column in enumerate(COLUMNS) if not rows or any(row[at] for row in rows)}
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
    status_style = look.STATUS_STYLES[verdict] if verdict else look.BLUE
    plain = look.INK if verdict in (None, "keep") else look.FAINT
    audit = look.AUDIT_STYLES[experiment.colour] if experiment.colour else look.FAINT
    delta = _delta_style(experiment)
    styles = [plain, look.FAINT, plain, audit, delta, delta, look.FAINT, look.FAINT, status_style, plain]
    texts = []
    for cell, style, column in zip(cells, styles, COLUMNS, strict=True):
        indent = len(column.title) - len(column.title.lstrip())
        shown = cell.rjust(column.width) if column.right else " " * indent + cell
        texts.append(Text(shown, style, no_wrap=True, overflow="ellipsis"))
    return texts


def _delta_style(experiment: Experiment) -> str:
    return look.GREEN if experiment.verdict == "keep" else look.FAINT
