"""How long the terminal takes to answer what it is asked along the way: the latency of the line to it. Pure."""

from __future__ import annotations

from collections import deque

QUESTION = "\x1b[6n"
"""Where the cursor stands (DSR 6): every terminal answers that, and Textual knows the answer."""

EVERY = 5.0
"""Seconds between two questions at least."""
SLOW = 0.15
"""Seconds from which on a line is slow."""
LOOKED_AT = 3
"""Of so many answers the quickest counts: a busy moment of this machine is none of the line's."""
OWED_AT_MOST = 1.0
"""Seconds."""


class Link:
    """Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=LOOKED_AT)
        self._asked: float | None = None
        """When what is not answered yet was asked."""
        self._next = 0.0

    def asks(self, now: float) -> bool:
        """Whether to ask now. A terminal that does not answer is not asked again."""
        if self._asked is not None or now < self._next:
            return False
        self._asked, self._next = now, now + EVERY
        return True

    def answered(self, now: float) -> None:
        if self._asked is not None:
            self._took.append(now - self._asked)
            self._asked = None

    @property
    def latency(self) -> float:
        """There and back; 0 before it is known."""
        return min(self._took) if len(self._took) == LOOKED_AT else 0.0

    @property
    def slow(self) -> bool:
        return self.latency >= SLOW

    def owed(self, now: float) -> float:
        """For how long an answer may still be on its way."""
        if self._asked is None or not self._took:
            return 0.0
        return min(OWED_AT_MOST, max(0.0, self._asked + 2 * min(self._took) - now))
