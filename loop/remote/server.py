"""The engine's side of the socket: one snapshot, then everything as it happens, to any number of viewers.

A viewer that does not read never slows the engine: what it misses is dropped, and it gets a new snapshot when it reads
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from loop.engine import Engine
from loop.events import (
    AgentDelta,
    AnyTelemetry,
    DraftDiff,
    LogLines,
    Machine,
    ProposalStarted,
    Record,
    Step,
    TrialStarted,
)
from loop.inbox import Inbox
from loop.remote import wire
from loop.trials.local import of_a_trial

QUEUE = 4096
"""Frames a viewer may fall behind before it is sent a snapshot instead."""
KEEP = 2.0
"""Seconds between two looks at whether the socket is still there."""
PART = 100
"""Experiments of a long study that are sent at a time."""
STEPS = 4000
"""Points of a curve that a viewer who comes late is sent."""


class Backlog:
    """The telemetry that a viewer who comes now has missed of the current experiment; bounded."""

    def __init__(self) -> None:
        self._words: deque[AgentDelta] = deque(maxlen=2000)
        self._diff: DraftDiff | None = None
        self._steps: list[Step] = []
        self._latest: Step | None = None
        self._seen, self._stride = 0, 1
        self._lines: deque[LogLines] = deque(maxlen=50)
        self._machine: deque[Machine] = deque(maxlen=120)

    def add(self, message: Record | AnyTelemetry) -> None:
        match message:
            case Record(event=ProposalStarted()):
                self._words.clear()
                self._diff = None
            case Record(event=TrialStarted()):
                self._steps.clear()
                self._latest, self._seen, self._stride = None, 0, 1
                self._lines.clear()
            case AgentDelta():
                self._words.append(message)
            case DraftDiff():
                self._diff = message
            case Step():
                if self._seen % self._stride == 0:
                    self._steps.append(message)
                self._latest, self._seen = message, self._seen + 1
                if len(self._steps) > STEPS:
                    # Half the points make the same curve, as long as they are as far apart everywhere.
                    del self._steps[1::2]
                    self._stride *= 2
            case LogLines():
                self._lines.append(message)
            case Machine():
                self._machine.append(message)

    def messages(self) -> tuple[AgentDelta | DraftDiff | Step | LogLines | Machine, ...]:
        diff = () if self._diff is None else (self._diff,)
        end = () if self._latest is None or self._latest is self._steps[-1] else (self._latest,)
        return (*self._words, *diff, *self._steps, *end, *self._lines, *self._machine)


class Server:
    """Serves one engine on one socket, to its own user only."""

    def __init__(self, engine: Engine, inbox: Inbox, path: Path) -> None:
        self._engine = engine
        self._inbox = inbox
        self._path = path
        self._backlog = Backlog()
        self._viewers: set[_Viewer] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._end_listening = engine.listen(self._publish)

    async def start(self) -> None:
        """Listen. The socket's folder belongs to this user alone. Raises: PermissionError, OSError."""
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{folder} must belong to you alone (chmod 700); the engine's socket is in it")
        await self._listen()
        self._keeping = asyncio.create_task(self._keep_listening(), name="keep the socket")

    async def _listen(self) -> None:
        # The journal's lock says that no other engine runs this study: a socket that is there is a dead one's.
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self._path))
        self._path.chmod(0o600)

    async def _keep_listening(self) -> None:
        """Cleaners of temporary folders, and people, delete sockets; an engine out of reach could not be steered."""
        while True:
            await asyncio.sleep(KEEP)
            if not self._path.exists():
                # A folder that is gone for the moment may be back at the next look.
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    if self._server:
                        self._server.close()
                    await self._listen()

    async def close(self) -> None:
        """Let viewers have what is queued for them, then hang up."""
        self._end_listening()
        if self._keeping:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._server:
            self._server.close()
        for viewer in self._viewers:
            viewer.finish()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=2.0)
            for connection in late:
                connection.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _publish(self, message: Record | AnyTelemetry) -> None:
        self._backlog.add(message)
        if self._viewers:
            frame = wire.encode(wire.Recorded(record=message) if isinstance(message, Record) else message)
            for viewer in self._viewers:
                viewer.offer(frame)

    def _snapshot(self) -> Iterator[bytes]:
        """The frames of a snapshot, of the state at the first of them."""
        experiments = self._engine.state.experiments.copy()
        state = replace(self._engine.state, experiments=[])
        yield wire.encode(wire.Snapshot(state=state, recent=self._backlog.messages(), more=len(experiments)))
        for at in range(0, len(experiments), PART):
            yield wire.encode(wire.History(experiments=tuple(experiments[at : at + PART])))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if _is_welcome(writer):
                await self._serve(reader, writer)
        except (ConnectionError, msgspec.DecodeError):
            pass  # A viewer that broke off or talks nonsense is gone; nothing of the study depends on it.
        finally:
            self._connections.discard(task)
            writer.close()
            if error := reader.exception():
                # The stream keeps it, and it keeps the frames it passed through: the stream's, and of a snapshot's
                # part. A process with few new objects breaks such a cycle after hours.
                error.__traceback__ = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder: msgspec.json.Decoder[wire.AnyRequest] = msgspec.json.Decoder(wire.AnyRequest)
        viewer = _Viewer(writer)
        sending = asyncio.create_task(viewer.send(self._snapshot))
        asking: set[asyncio.Task[None]] = set()
        reading = asyncio.create_task(self._read(reader, decoder, viewer, asking))
        try:
            await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._viewers.discard(viewer)
            for task in (sending, reading):
                task.cancel()
            await asyncio.gather(sending, reading, *asking, return_exceptions=True)

    async def _read(
        self,
        reader: asyncio.StreamReader,
        decoder: msgspec.json.Decoder[wire.AnyRequest],
        viewer: _Viewer,
        asking: set[asyncio.Task[None]],
    ) -> None:
        while (request := await wire.read(reader, decoder)) is not None:
            if isinstance(request, wire.Watch):
                viewer.resync()
                self._viewers.add(viewer)
            else:
                # A command may take seconds to be carried out; the next request does not wait for it.
                task = asyncio.create_task(self._answer(request, viewer))
                asking.add(task)
                task.add_done_callback(asking.discard)

    async def _answer(self, request: wire.Act | wire.Fetch, viewer: _Viewer) -> None:
        try:
            if isinstance(request, wire.Act):
                reply = await self._inbox.do(request.command)
                answer = wire.Answer(id=request.id, ok=reply.ok, text=reply.text)
            else:
                text = await asyncio.to_thread(self._fetch, request)
                answer = wire.Answer(id=request.id, ok=text is not None, text=text or "")
        except Exception as error:
            # A full disk, above all: whoever asked would wait for ever.
            answer = wire.Answer(id=request.id, ok=False, text=f"the engine could not: {error}")
        viewer.answer(wire.encode(answer))

    def _fetch(self, request: wire.Fetch) -> str | None:
        study, experiments, number = self._engine.study, self._engine.state.experiments, request.number
        if request.artifact == "spec":
            path = study.spec(number)
        elif 0 <= number < len(experiments):
            latest = len(experiments[number].trials) or 1
            trial = latest if request.trial is None else request.trial
            path = {
                "diff": study.diff(number),
                "reasoning": study.reasoning(number),
                "log": study.log(number, trial),
                "audit": study.audit_log(number, trial),
                "metrics": study.metrics(number, trial),
            }[request.artifact]
        else:
            return None
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - max(0, request.tail)))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return None


class _Viewer:
    """What is to be sent to one connection: answers always, the stream as far as it keeps up."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()
        self._resync = False
        self._finished = False
        self._ready = asyncio.Event()

    def offer(self, frame: bytes) -> None:
        if self._resync:
            return  # The snapshot to come holds it.
        if len(self._frames) >= QUEUE:
            self.resync()
            return
        self._frames.append(frame)
        self._ready.set()

    def answer(self, frame: bytes) -> None:
        self._answers.append(frame)
        self._ready.set()

    def resync(self) -> None:
        self._frames.clear()
        self._resync = True
        self._ready.set()

    def finish(self) -> None:
        self._finished = True
        self._ready.set()

    async def send(self, snapshot: Callable[[], Iterator[bytes]]) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._answers or self._resync or self._frames:
                if self._resync:
                    self._resync = False
                    await self._write_each(snapshot())
                elif self._frames:
                    await self._write(self._frames.popleft())
                else:
                    await self._write()
            if self._finished:
                return

    async def _write_each(self, frames: Iterator[bytes]) -> None:
        for frame in frames:
            await self._write(frame)

    async def _write(self, *frames: bytes) -> None:
        """Write as fast as the other end reads, and what was asked for first."""
        while self._answers:
            self._writer.write(self._answers.popleft())
        self._writer.writelines(frames)
        await self._writer.drain()


def _is_welcome(writer: asyncio.StreamWriter) -> bool:
    """Whether the kernel says that the other end is this user's and no trial's; where it says nothing, the mode rules.

    A trial that Landlock alone walls off can reach a socket by its path.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, user, _ = struct.unpack("3i", raw)
        return user == os.getuid() and not of_a_trial(pid)
    return False
