"""The cockpit's keys, and why one cannot act now. Pure."""

from __future__ import annotations

from typing import NamedTuple

from loop.state import BASELINE, StudyState
from tui import words


class Key(NamedTuple):
    key: str
    action: str
    label: str
    rank: int
    """Where a line has no room, the highest ranks go first; 0 stays."""


KEYS = (
    Key("p", "pause", "pause", 0),
    Key("s", "step", "step", 1),
    Key("x", "reject", "reject", 0),
    Key("k", "keep", "keep", 2),
    Key("m", "message", "message", 3),
    Key("e", "program", "program.md", 4),
    Key("v", "chart_view", "chart", 6),
    Key("z", "zoom", "zoom", 7),
    Key("1-6", "next_pane", "panes", 8),
    Key("?", "help", "help", 0),
    Key("q", "detach", "detach", 0),
    Key("Q", "stop", "stop", 5),
)

FOR_THE_ENGINE = frozenset(("pause", "step", "reject", "keep", "message", "stop"))


def refusal(action: str, state: StudyState, *, connected: bool, pointed: int | None, compact: bool) -> str | None:
    """Why `action` can do nothing now, in a sentence; None where it can.

    Args:
        pointed: the experiment under the table's cursor.
        compact: the screen has room for one pane only.
    """
    if action in FOR_THE_ENGINE:
        if state.mode == "stopped" and state.seq:
            return "the engine has ended; nothing can be asked of it"
        if not connected:
            return "no engine answers; nothing can be asked of it"
    match action:
        case "reject":
            return _cannot_reject(state)
        case "keep":
            return _cannot_keep(state, pointed)
        case "zoom" if compact:
            return "this terminal has room for one pane; it is as large as it gets"
    return None


def _cannot_reject(state: StudyState) -> str | None:
    current = state.current
    if current is None:
        if (measured := state.measuring) is not None:
            return f"{words.name(measured.number)} is the incumbent, measured again; only a proposal can be rejected"
        return "nothing is under way that could be rejected"
    if current.agent == BASELINE:
        return "the baseline is being measured; everything else is compared with it"
    return None


def _cannot_keep(state: StudyState, pointed: int | None) -> str | None:
    if pointed is None or pointed >= len(state.experiments):
        return "the table has no experiment to keep yet"
    experiment = state.experiments[pointed]
    if experiment.mean is None:
        if experiment.colour == "red":
            return f"the audit of {words.name(pointed)} is red; what does not count cannot be kept"
        return f"{words.name(pointed)} has no measured value; point at one that has (5, then the arrows)"
    if pointed == state.incumbent:
        return f"{words.name(pointed)} is the incumbent already"
    best = state.best
    if best is not None and experiment.base != best.commit:
        return (
            f"{words.name(pointed)} was made against another commit than the incumbent {words.name(best.number)}; "
            "only what stands on the incumbent can be kept"
        )
    current = state.current
    if best is not None and current is not None and current is not experiment and current.stage != "proposing":
        return (
            f"{words.name(current.number)} is being measured against {words.name(best.number)}; "
            f"reject it or wait for its verdict, then keep {words.name(pointed)}"
        )
    return None
