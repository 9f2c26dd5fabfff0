"""What pages and dialogs may ask of the engine, without knowing where it is."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from loop.commands import AnyCommand, Reply
from loop.remote.wire import Artifact


class Fetch(Protocol):
    def __call__(self, number: int, artifact: Artifact, *, trial: int | None = None) -> Awaitable[str | None]:
        """An experiment's file, of its latest trial or of `trial`; "" where there is none, None without an engine."""
        ...


class Do(Protocol):
    def __call__(self, command: AnyCommand) -> Awaitable[Reply]:
        """Have the engine carry a command out. Where none answers, the reply says that."""
        ...
