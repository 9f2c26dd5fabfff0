"""What is worth calling a person for who looks elsewhere. Pure."""

from __future__ import annotations

from loop import events as ev
from loop.remote.wire import Recorded
from loop.state import BASELINE, StudyState
from tui import words

STREAK = 3
"""Crashes in a row."""


def wanted(update: Recorded, state: StudyState) -> str | None:
    """In a few clean words: a new best, a streak of crashes, an engine that waits; None for all else.

    `state` is the one after the update.
    """
    event = update.record.event
    match event:
        case ev.Decided(verdict="keep", number=number) if state.experiments[number].agent != BASELINE:
            return f"new best {words.value(state.experiments[number].value)}, {words.name(number)}"
        case ev.Decided(verdict="crash"):
            latest = [one.verdict for one in state.experiments[-STREAK:]]
            return f"{STREAK} crashes in a row" if latest == ["crash"] * STREAK else None
        case ev.Paused(by="engine", reason=reason):
            return f"waits for you: {words.one_line(reason)}"[:80]
        case ev.Proposed() | ev.GateSet() if (waiting := state.awaiting) is not None:
            return f"{words.name(waiting.number)} waits for your approval"
        case ev.Permission(allowed=None, number=number):
            return f"{words.name(number)} asks for your permission"
        case ev.EngineStopped(reason=reason):
            return f"the engine has ended: {words.one_line(reason)}"[:80]
    return None
