"""A viewer's side of the socket: the study's state kept current, and commands sent to its engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from loop.commands import AnyCommand, Reply
from loop.events import AgentDelta, DraftDiff, LogLines, Machine, Step
from loop.remote import wire
from loop.remote.wire import Artifact, Recorded, Snapshot
from loop.state import StudyState

Update = Snapshot | Recorded | AgentDelta | DraftDiff | Step | LogLines | Machine


class EngineGone(ConnectionError):
    """No engine answers on this socket."""


class OtherVersion(EngineGone):
    """What the engine says is none of this version's messages."""


class Client:
    """One connection. Open it with `connect`; iterate `updates` to watch; `do` and `fetch` work beside that."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.state = StudyState()
        self._writer = writer
        self._answers: dict[int, asyncio.Future[wire.Answer]] = {}
        self._next_id = 0
        self._partial: Snapshot | None = None
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(reader), name="labtop client")

    @classmethod
    async def connect(cls, socket: Path) -> Client:
        """Raises: EngineGone where nothing listens on `socket`."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket))
        except OSError as error:
            raise EngineGone(f"no engine answers on {socket}: {error.strerror}") from error
        return cls(reader, writer)

    async def updates(self) -> AsyncIterator[Update]:
        """A `Snapshot` first, then everything as it happens; `state` is current at each. Ends when the engine goes.

        Raises: OtherVersion.
        """
        self._send(wire.Watch(id=self._new_id()))
        while (update := await self._updates.get()) is not None:
            match update:
                case Snapshot():
                    self.state = update.state
                case Recorded():
                    self.state.apply(update.record)
            yield update
        await asyncio.wait({self._reading})
        if not self._reading.cancelled() and (error := self._reading.exception()):
            raise error

    async def do(self, command: AnyCommand) -> Reply:
        """Raises: EngineGone where the engine ends before it answers."""
        answer = await self._ask(wire.Act(id=self._new_id(), command=command))
        return Reply(ok=answer.ok, text=answer.text)

    async def fetch(self, number: int, artifact: Artifact, *, trial: int | None = None, tail: int = 1024 * 1024) -> str:
        """An experiment's file as text, "" where there is none yet. Raises: EngineGone."""
        request = wire.Fetch(id=self._new_id(), number=number, artifact=artifact, trial=trial, tail=tail)
        answer = await self._ask(request)
        return answer.text if answer.ok else ""

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        # Whatever ended the reading is told by `updates`; to hang up is all that is left.
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._reading
            await self._writer.wait_closed()

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _send(self, request: wire.AnyRequest) -> None:
        if self._reading.done():
            raise EngineGone("the engine has ended")
        self._writer.write(wire.encode(request))

    async def _ask(self, request: wire.Act | wire.Fetch) -> wire.Answer:
        answer: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()
        self._answers[request.id] = answer
        try:
            self._send(request)
            return await answer
        finally:
            del self._answers[request.id]

    def _whole(self, message: Update | wire.History) -> Update | None:
        """The message, or None where it is a part of a snapshot that is still to be completed."""
        match message:
            case Snapshot():
                self._partial = message
            case wire.History() if self._partial:
                self._partial.state.experiments.extend(message.experiments)
            case wire.History():
                return None
            case _:
                return message
        if len(self._partial.state.experiments) < self._partial.more:
            return None
        snapshot, self._partial = self._partial, None
        return snapshot

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder: msgspec.json.Decoder[wire.AnyMessage] = msgspec.json.Decoder(wire.AnyMessage)
        try:
            while (message := await wire.read(reader, decoder)) is not None:
                if isinstance(message, wire.Answer):
                    waiting = self._answers.get(message.id)
                    # One who was cancelled may not have had the time to leave the table yet.
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                elif (whole := self._whole(message)) is not None:
                    self._updates.put_nowait(whole)
        except msgspec.DecodeError as error:
            raise OtherVersion(
                "the engine is of another version: `labtop stop` ends it, `labtop run` starts one of this version"
            ) from error
        finally:
            self._updates.put_nowait(None)
            for waiting in self._answers.values():
                if not waiting.done():
                    waiting.set_exception(EngineGone("the engine ended before it answered"))
