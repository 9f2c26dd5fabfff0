"""One engine and its viewers over a real socket: what each sees, and what none of them can do to the study."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import stat
import struct
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from loop import commands, study
from loop import events as ev
from loop.commands import Reply
from loop.config import Config
from loop.events import Record
from loop.remote import server as server_module
from loop.remote import wire
from loop.remote.client import Client, EngineGone, OtherVersion
from loop.remote.server import PART, QUEUE, Backlog, Server
from loop.remote.wire import Recorded, Snapshot
from loop.state import StudyState
from loop.study import Study

OPENED = ev.StudyOpened(
    tag="t",
    branch="labtop/t",
    base="b" * 40,
    metric="val_bpb",
    direction="minimize",
    budget=1,
    device="cpu",
    command="x",
)
MESSAGES = msgspec.json.Decoder(wire.AnyMessage)


class Cardboard:
    """The engine's outside: it tells what the test makes happen, and does what the test says."""

    def __init__(self, root: Path) -> None:
        config = Config(command="x", editable=("train.py",))
        self.study = Study(root=root, tag="t", config=config, device="cpu", budget=1.0, agent="search", sandbox="off")
        self.state = StudyState()
        self.commands: list[commands.AnyCommand] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self._listeners = []

    def listen(self, listener):
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def happens(self, *events) -> None:
        for event in events:
            record = Record(seq=self.state.seq + 1, time=1000.0 + self.state.seq, event=event)
            self.state.apply(record)
            self.tell(record)

    def tell(self, message) -> None:
        for listener in self._listeners:
            listener(message)

    async def do(self, command) -> Reply:
        self.commands.append(command)
        await self.hold.wait()
        if isinstance(command, commands.Reject):
            raise OSError(28, "No space left on device")
        return Reply(ok=True, text=f"did {type(command).__name__}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "labtop" / "s.sock"


@pytest.fixture
async def engine(tmp_path):
    return Cardboard(tmp_path)


@pytest.fixture
async def server(engine, path):
    """Listens; fails the test where a task of it broke unseen."""
    broken = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    server = Server(engine, engine, path)
    await server.start()
    yield server
    await server.close()
    assert not broken


@pytest.fixture
async def connect(server, path):
    clients = []

    async def connect() -> Client:
        clients.append(await Client.connect(path))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


async def test_a_viewer_gets_the_state_and_then_everything_as_it_happens(engine, connect):
    engine.happens(OPENED, ev.EngineStarted(pid=7, host="h", agent="search", version="1"))
    client = await connect()
    updates = client.updates()
    first = await anext(updates)
    assert isinstance(first, Snapshot) and first.state == engine.state == client.state
    line = ev.LogLines(number=0, trial=1, lines=("größer",))
    engine.happens(ev.Noted(text="größer"))
    engine.tell(line)
    engine.happens(ev.Paused(reason="tea"))
    got = [await anext(updates) for _ in range(3)]
    assert [type(update) for update in got] == [Recorded, ev.LogLines, Recorded] and got[1] == line
    assert client.state == engine.state and client.state.mode_reason == "tea"


async def test_a_long_study_comes_in_parts_and_is_one_state_though_it_moves_on_meanwhile(engine, server, connect):
    engine.happens(OPENED)
    for number in range(5 * PART + 7):
        begun = ev.ProposalStarted(number=number, base="b" * 40, agent="search", spec=1)
        proposed = ev.Proposed(number=number, commit="c" * 40, hypothesis="why " * 1000)
        engine.happens(begun, proposed, ev.Decided(number=number, verdict="discard", reason="worse"))
    client = await connect()
    updates = client.updates()
    watching = asyncio.ensure_future(anext(updates))
    while not client._partial:  # The first part has come, and the rest waits for somebody to read.
        await asyncio.sleep(0)
    now = engine.state.seq
    engine.happens(ev.Decided(number=3, verdict="keep", reason="by hand", by="person"), ev.Noted(text="meanwhile"))
    first = await watching
    assert isinstance(first, Snapshot) and first.state.seq == now
    assert len(first.state.experiments) == 5 * PART + 7 and first.state.experiments[3].verdict == "discard"
    assert [type(await anext(updates)) for _ in range(2)] == [Recorded, Recorded]
    assert client.state == engine.state and client.state.experiments[3].verdict == "keep"


async def test_two_viewers_of_a_real_engine_see_the_same_to_its_end(lab):
    async def watch(client: Client) -> list[Record]:
        return [update.record async for update in client.updates() if isinstance(update, Recorded)]

    async with lab.engine(experiments=2) as engine:
        early, late = await Client.connect(lab.socket), await Client.connect(lab.socket)
        watching = asyncio.create_task(watch(early))
        while engine.state.tried < 1:
            await asyncio.sleep(0.01)
        watching_late = asyncio.create_task(watch(late))
        await engine.task
    seen, seen_late = await watching, await watching_late
    assert isinstance(seen[-1].event, ev.EngineStopped) and seen_late == seen[len(seen) - len(seen_late) :]
    assert [record.seq for record in seen] == list(range(seen[0].seq, engine.state.seq + 1))
    assert early.state == late.state == engine.state and engine.state.mode == "stopped"
    for client in (early, late):
        await client.close()


async def test_commands_and_what_is_on_disk(engine, connect):
    engine.happens(OPENED, ev.ProposalStarted(number=0, base="b", agent="baseline", spec=1))
    client = await connect()
    assert await client.do(commands.Note(text="é")) == Reply(ok=True, text="did Note")
    assert engine.commands == [commands.Note(text="é")]
    assert await client.fetch(0, "diff") == "", "there is none yet"
    path = engine.study.diff(0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0123456789\xff")
    assert await client.fetch(0, "diff") == "0123456789�"
    assert await client.fetch(0, "diff", tail=3) == "89�"
    assert await client.fetch(0, "diff", tail=-5) == ""
    assert await client.fetch(0, "log") == "" and await client.fetch(1, "diff") == await client.fetch(-1, "diff") == ""


async def test_a_command_that_takes_long_holds_up_nothing_else(engine, connect, until):
    client, other = await connect(), await connect()
    engine.hold.clear()
    pausing = asyncio.create_task(client.do(commands.Pause()))
    await until(lambda: engine.commands, "the command has come")
    for viewer in (client, other):
        assert await viewer.fetch(0, "diff") == ""
    assert not pausing.done()
    engine.hold.set()
    assert (await pausing).text == "did Pause"


async def test_a_command_that_fails_is_answered(engine, connect):
    client = await connect()
    reply = await asyncio.wait_for(client.do(commands.Reject(why="no")), 60)
    assert not reply.ok and "No space left on device" in reply.text
    assert (await client.do(commands.Pause())).ok


async def test_a_viewer_that_does_not_read_slows_nobody_and_finds_its_way_back(engine, server, connect, path, until):
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1024)
    writer.write(wire.encode(wire.Watch(id=1)))
    await until(lambda: server._viewers, "it watches")
    (slow,) = server._viewers
    quick = await connect()
    watching = asyncio.create_task(drain(quick))
    engine.happens(OPENED)
    for _ in range(3 * QUEUE // 100):
        engine.happens(*[ev.Noted(text="x" * 200)] * 100)
        await asyncio.sleep(0)
        assert len(slow._frames) <= QUEUE
    await until(lambda: quick.state.seq == engine.state.seq, "the quick one is up to date")
    assert quick.state == engine.state

    state, snapshots = StudyState(), 0
    while state.seq < engine.state.seq:
        match await wire.read(reader, MESSAGES):
            case Snapshot(state=state):
                snapshots += 1
            case Recorded(record=record):
                assert record.seq == state.seq + 1, "what it missed is missing without a word"
                state.apply(record)
    assert snapshots == 2 and state == engine.state
    watching.cancel()
    writer.close()


async def drain(client: Client) -> None:
    async for _ in client.updates():
        pass


def frame(body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", len(body) if size is None else size) + body


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\xff" * 4096,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        frame(b""),
        frame(b"{}"),
        frame(b"\x00\xff\xfe"),
        frame(b'{"type":"Watch"}'),
        frame(b'{"type":"Launch","id":1}'),
        frame(b'{"type":"Act","id":1,"command":{"do":"Format"}}'),
        frame(b'{"type":"Fetch","id":1,"number":0,"artifact":"../../secret"}'),
        frame(b"[" * 100_000),
        frame(b'{"type":"Watch","id":1}') + b"\xff" * 100,
        frame(b'{"type":"Watch"', size=1000),
        struct.pack(">I", wire.LIMIT + 1),
    ],
    ids=range(15),
)
async def test_a_viewer_that_talks_nonsense_is_hung_up_on_and_that_is_all(
    engine, server, connect, path, garbage, until
):
    client = await connect()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(garbage)
    # Hung up on before it was read to its end, a socket is reset.
    with contextlib.suppress(ConnectionError):
        writer.write_eof()
        await reader.read()
    writer.close()
    await until(lambda: len(server._connections) == 1 and not server._viewers, "it is forgotten")
    engine.happens(OPENED)
    assert (await client.do(commands.Pause())).ok and engine.commands == [commands.Pause()]


async def test_viewers_that_come_and_go_leave_nothing(engine, server, connect, until):
    for _ in range(30):
        client = await connect()
        await anext(client.updates())
        await client.close()
    await until(lambda: not server._viewers and not server._connections, "all are forgotten")
    engine.happens(OPENED)


async def test_a_viewer_that_breaks_off_in_a_snapshot_leaves_no_memory_behind(engine, server, path, until):
    engine.happens(OPENED, *[ev.Noted(text="x" * 10_000)] * 200)

    def readers() -> int:
        return sum(type(one) is asyncio.StreamReader for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = readers()
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as viewer:
                viewer.connect(str(path))
                viewer.sendall(wire.encode(wire.Watch(id=1)))
                await until(lambda: server._viewers, "it watches")
                await asyncio.sleep(0.05)  # The snapshot waits for somebody to read it.
            await until(lambda: not server._connections, "it is forgotten")
        await asyncio.sleep(0.05)
        assert readers() == before, "what is left of them waits for a collection that may come in hours"
    finally:
        gc.enable()


async def test_a_viewer_that_hangs_up_in_the_middle_of_a_command_does_not_undo_it(engine, server, connect, until):
    client = await connect()
    engine.hold.clear()
    asking = asyncio.create_task(client.do(commands.Pause()))
    await until(lambda: engine.commands, "the command has come")
    await client.close()
    with pytest.raises(EngineGone):
        await asking
    engine.hold.set()
    await until(lambda: not server._connections, "it is forgotten")


async def test_an_answer_to_one_who_has_just_given_up_ends_nothing_for_the_others():
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    client = Client(reader, writer)
    given_up = asyncio.create_task(client.fetch(1, "diff"))
    staying = asyncio.create_task(client.fetch(2, "log"))
    await asyncio.sleep(0)
    # In one turn of the loop, the answer first: it is read before the one who asked has left.
    reader.feed_data(wire.encode(wire.Answer(id=1, ok=True, text="too late")))
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    reader.feed_data(wire.encode(wire.Answer(id=2, ok=True, text="in time")))
    assert await staying == "in time"
    await client.close()
    there.close()


async def test_when_the_engine_ends_viewers_get_its_last_words_and_know(engine, path):
    server = Server(engine, engine, path)
    await server.start()
    client = await Client.connect(path)
    updates = client.updates()
    await anext(updates)
    engine.hold.clear()
    asking = asyncio.create_task(client.do(commands.Pause()))
    engine.happens(OPENED, ev.EngineStopped(reason="done"))
    closing = asyncio.create_task(server.close())
    rest = [update async for update in updates]
    assert [type(update.record.event) for update in rest] == [ev.StudyOpened, ev.EngineStopped]
    with pytest.raises(EngineGone, match="ended"):
        await asking
    engine.hold.set()
    await closing
    with pytest.raises(EngineGone, match="ended"):
        await client.do(commands.Pause())
    await client.close()


async def test_the_socket_is_its_users_alone_and_goes_with_the_engine(engine, path):
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        server = Server(engine, engine, path)
        await server.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert await asyncio.to_thread(study.answers, path)
    await server.close()
    assert not path.exists() and not study.answers(path)
    with pytest.raises(EngineGone, match=str(path)):
        await Client.connect(path)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
async def test_a_folder_that_others_can_enter_is_refused_with_advice(engine, path, mode):
    path.parent.mkdir(parents=True)
    path.parent.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 700"):
        await Server(engine, engine, path).start()
    assert not path.exists()


async def test_a_folder_of_somebody_else_is_refused(engine, path, monkeypatch):
    path.parent.mkdir(parents=True, mode=0o700)
    other = os.getuid() + 1
    monkeypatch.setattr(server_module.os, "getuid", lambda: other)
    with pytest.raises(PermissionError, match="belong to you alone"):
        await Server(engine, engine, path).start()


async def test_somebody_else_is_told_nothing(engine, server, path, monkeypatch):
    other = os.getuid() + 1
    monkeypatch.setattr(server_module.os, "getuid", lambda: other)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(wire.encode(wire.Act(id=1, command=commands.Stop(now=True))))
    told = b""
    with contextlib.suppress(ConnectionError):
        told = await reader.read()
    assert told == b"" and not engine.commands
    writer.close()


async def test_a_dead_engines_socket_is_no_obstacle(engine, path):
    first = Server(engine, engine, path)
    await first.start()
    path.rename(aside := path.with_name("left"))
    await first.close()
    aside.rename(path)
    assert not study.answers(path)
    second = Server(engine, engine, path)
    await second.start()
    client = await Client.connect(path)
    assert (await client.do(commands.Pause())).ok
    await client.close()
    await second.close()


async def test_an_engine_of_another_version_is_told_as_such(path):
    async def newer(reader, writer):
        await wire.read(reader, msgspec.json.Decoder(wire.AnyRequest))
        writer.write(frame(b'{"type":"Hologram","id":1}'))
        writer.close()

    path.parent.mkdir(parents=True)
    listening = await asyncio.start_unix_server(newer, str(path))
    client = await Client.connect(path)
    with pytest.raises(OtherVersion, match="labtop stop"):
        await anext(client.updates())
    with pytest.raises(EngineGone):
        await client.do(commands.Pause())
    await client.close()
    listening.close()


def step(n: int) -> ev.Step:
    return ev.Step(number=1, trial=1, time=n / 10, step=n, loss=1.0)


def test_who_comes_late_still_sees_the_whole_curve_and_it_stays_small():
    backlog = Backlog()
    for n in range(100_000):
        backlog.add(step(n))
        backlog.add(ev.AgentDelta(number=1, kind="text", text=f"{n}"))
    steps = [message.step for message in backlog.messages() if isinstance(message, ev.Step)]
    assert 1000 < len(steps) <= 4001 and steps == sorted(steps)
    assert steps[0] == 0 and steps[-1] == 99_999
    assert max(b - a for a, b in pairwise(steps)) < 100
    words = [message.text for message in backlog.messages() if isinstance(message, ev.AgentDelta)]
    assert words == [str(n) for n in range(98_000, 100_000)]


async def test_the_backlog_is_of_the_current_experiment_only(engine, server, connect):
    def experiment(number):
        engine.happens(ev.ProposalStarted(number=number, base="b", agent="search", spec=1))
        engine.tell(ev.AgentDelta(number=number, kind="thought", text="hm"))
        engine.tell(ev.DraftDiff(number=number, diff="+x"))
        engine.happens(ev.Proposed(number=number, commit="c", hypothesis="h"))
        engine.happens(ev.TrialStarted(number=number, trial=1, device="cpu", seed=1, budget=1))
        engine.tell(ev.Step(number=number, trial=1, time=0.0, step=0, loss=1.0))
        engine.tell(ev.LogLines(number=number, trial=1, lines=("l",)))

    engine.happens(OPENED)
    experiment(0)
    engine.happens(ev.Decided(number=0, verdict="keep", reason="r"))
    experiment(1)
    first = await anext((await connect()).updates())
    assert [(type(message).__name__, message.number) for message in first.recent] == [
        ("AgentDelta", 1),
        ("DraftDiff", 1),
        ("Step", 1),
        ("LogLines", 1),
    ]
