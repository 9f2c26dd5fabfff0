"""The cockpit's keys, and why one cannot act now. Pure."""

from __future__ import annotations

from typing import NamedTuple

from loop import refusals
from loop.state import StudyState


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
            return refusals.reject(state)
        case "step":
            return refusals.step(state)
        case "keep":
            return refusals.keep(state, pointed)
        case "zoom" if compact:
            return "this terminal has room for one pane; it is as large as it gets"
    return None
