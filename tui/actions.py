"""Everything a person can do in the cockpit, once: keys, footer, help and command palette are read from here. Pure."""

from __future__ import annotations

from typing import NamedTuple

from textual.message import Message

from loop import refusals
from loop.commands import AnyCommand
from loop.state import StudyState


class Action(NamedTuple):
    """`_act_<name>` of the cockpit carries it out."""

    name: str
    key: str
    """As Textual calls it."""
    shown: str
    """The key as a person reads it."""
    label: str
    does: str
    """In a sentence, for help and palette."""
    rank: int | None = None
    """Where the footer has no room, the highest go first; 0 stays, None never stands there."""
    asks: bool = False
    """Whether it asks something of the engine."""


ACTIONS = (
    Action("pause", "p", "p", "pause", "pause: a training waits at its next step; again: resume", 0, True),
    Action("step", "s", "s", "step", "single step: propose, then wait; train, then wait; judge, then wait", 2, True),
    Action("reject", "x", "x", "reject", "reject the experiment under way, or refuse what its agent asks for", 0, True),
    Action("keep", "k", "k", "keep", "keep the experiment under the cursor by hand: the branch moves onto it", 4, True),
    Action("undo", "u", "u", "undo", "undo the last verdict: the branch goes back, the journal keeps both", 8, True),
    Action("approve", "a", "a", "approve", "approve or allow what waits; if none: approve mode on or off", 1, True),
    Action("gate", "A", "A", "approve mode", "approve mode on or off: nothing trains unapproved", None, True),
    Action("breakpoints", "b", "b", "breakpoints", "breakpoints: pause when a condition holds", 12, True),
    Action("message", "m", "m", "message", "a message to the agent, for its next briefing", 5, True),
    Action("program", "e", "e", "program.md", "edit program.md; the agent reads it in its next briefing", 6),
    Action("chart_view", "v", "v", "chart", "the chart: the study; this run against the incumbent; program.md", 10),
    Action("zoom", "z", "z", "zoom", "the pane in focus alone on the screen; again: all six", 11),
    Action("find", "slash", "/", "filter", "filter the experiments; search in the log, the diff, the agent's words", 7),
    Action("next", "n", "n", "next", "the next hunk of the diff, or the next place of what is searched for"),
    Action("before", "N", "N", "before", "the hunk or the place before"),
    Action("copy", "y", "y", "copy", "copy what the pane in focus shows, through the terminal (OSC 52)", 13),
    Action("next_pane", "tab", "1-6", "panes", "go to the next pane; 1 to 6 go to one", 14),
    Action("theme", "t", "t", "theme", "the other theme, dark or light; themes in the palette has all of them"),
    Action("bell", "B", "B", "bell", "the bell on or off; in the background it rings for what wants you"),
    Action("palette", "colon", ":", "command", "every action by name; also Ctrl+P", 3),
    Action("help", "question_mark", "?", "help", "what keys, words and marks mean", 0),
    Action("detach", "q", "q", "detach", "detach: the view closes, the engine goes on; Ctrl+C does the same", 0),
    Action("stop", "Q", "Q", "stop", "stop the engine, now or after the running experiment; it asks first", 9, True),
)  # fmt: skip

BY_NAME = {action.name: action for action in ACTIONS}


class Given(Message):
    """A person's command to the engine."""

    def __init__(self, command: AnyCommand) -> None:
        super().__init__()
        self.command = command


def label(action: Action, state: StudyState) -> str:
    """What it does now."""
    match action.name:
        case "pause" if state.mode == "paused":
            return "resume"
        case "approve" if state.asked:
            return "allow it"
        case "reject" if state.asked:
            return "refuse it"
        case "approve" if state.awaiting is None:
            return "approve mode off" if state.approving else "approve mode"
    return action.label


def refusal(name: str, state: StudyState, *, connected: bool, number: int | None, compact: bool) -> str | None:
    """Why an action can do nothing now, in a sentence; None where it can.

    Args:
        number: the experiment that it is about, where one was named.
        compact: the screen has room for one pane only.
    """
    if BY_NAME[name].asks:
        if state.mode == "stopped" and state.seq:
            return "the engine has ended; nothing can be asked of it"
        if not connected:
            return "no engine answers; nothing can be asked of it"
    match name:
        case "reject":
            return refusals.reject(state, number)
        case "step":
            return refusals.step(state)
        case "keep":
            return refusals.keep(state, number)
        case "undo":
            return refusals.undo(state, number)
        case "zoom" if compact:
            return "this terminal has room for one pane; it is as large as it gets"
    return None
