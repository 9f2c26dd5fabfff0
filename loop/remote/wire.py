"""What goes over the socket: one message a frame, JSON behind a 4-byte big-endian length."""

from __future__ import annotations

import asyncio
import struct
from typing import Literal, TypeVar

import msgspec

from loop.commands import AnyCommand
from loop.events import AgentDelta, DraftDiff, LogLines, Machine, Record, Step
from loop.state import Experiment, StudyState

LIMIT = 256 * 1024 * 1024
"""A frame larger than this, in bytes, is an error of the other side."""

Artifact = Literal["diff", "reasoning", "log", "audit", "metrics", "spec"]
"""A file of an experiment: the proposal's diff, the agent's words; a trial's output, what its audit printed, its steps
as JSON lines. Of a "spec" the number is the version of program.md."""


class Request(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """Base of what a viewer sends. `id` comes back with the answer."""

    id: int


class Watch(Request, frozen=True):
    """Send a snapshot, and from then on everything as it happens."""


class Act(Request, frozen=True):
    command: AnyCommand


class Fetch(Request, frozen=True):
    """One artifact of an experiment, of its latest trial or of `trial`. `tail`: at most so many bytes from the end."""

    number: int
    artifact: Artifact
    trial: int | None = None
    tail: int = 1024 * 1024


class Answer(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """To the request of that `id`: a command's fate in words, or the text that was fetched."""

    id: int
    ok: bool
    text: str


class Snapshot(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """The state now, and the telemetry of the current experiment so far (the latest of it, where it is much).

    `more` of its experiments follow in `History` messages: a long study in one frame would be megabytes at once.
    """

    state: StudyState
    recent: tuple[AgentDelta | DraftDiff | Step | LogLines | Machine, ...] = ()
    more: int = 0


class History(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """The next ones of the experiments that the latest snapshot lacks."""

    experiments: tuple[Experiment, ...]


class Recorded(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """The study moved on by one event."""

    record: Record


AnyRequest = Watch | Act | Fetch
AnyMessage = Answer | Snapshot | History | Recorded | AgentDelta | DraftDiff | Step | LogLines | Machine

_encoder = msgspec.json.Encoder()
T = TypeVar("T")


def encode(message: AnyRequest | AnyMessage) -> bytes:
    """The frame that carries `message`."""
    body = _encoder.encode(message)
    return struct.pack(">I", len(body)) + body


async def read(reader: asyncio.StreamReader, decoder: msgspec.json.Decoder[T]) -> T | None:
    """The next message, or None where the other side has gone.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: for a frame that is not a message.
    """
    try:
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        if size > LIMIT:
            raise msgspec.DecodeError(f"a frame of {size} bytes is over the limit")
        return decoder.decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
