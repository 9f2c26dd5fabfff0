"""What is said to the terminal beside the screen: the clipboard, the title, and whether it still reads."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from textual.driver import Driver

COPIED_AT_MOST = 74_994
"""Bytes that terminals take for the clipboard; xterm's limit, in which base64 makes a third more."""

QUEUED = 8
"""Writes that wait for the terminal, from which on a frame is left out: with 30 the whole cockpit would wait."""


def clipboard(text: str, environment: Mapping[str, str]) -> tuple[str, bool]:
    """The sequence that puts `text` on the clipboard (OSC 52), and whether all of it fits.

    tmux takes it where `set-clipboard` is on, and hands a wrapped one through where `allow-passthrough` is; screen
    hands through wrapped ones alone.
    """
    raw = text.encode()
    kept = raw[:COPIED_AT_MOST].decode("utf-8", "ignore").encode()
    plain = f"\x1b]52;c;{base64.b64encode(kept).decode()}\x07"
    if environment.get("TMUX"):
        plain += f"\x1bPtmux;{plain.replace(chr(27), chr(27) * 2)}\x1b\\"
    elif environment.get("STY"):
        plain = f"\x1bP{plain}\x1b\\"
    return plain, len(kept) == len(raw)


def title(text: str) -> str:
    """The sequence that gives the window a title. `text` must be clean."""
    return f"\x1b]2;{text}\x07"


def congested(driver: Driver | None) -> bool:
    """Whether the terminal reads more slowly than is written."""
    # No public name tells; where Textual is built otherwise every frame is drawn.
    queue = getattr(getattr(driver, "_writer_thread", None), "_queue", None)
    return queue is not None and queue.qsize() > QUEUED
