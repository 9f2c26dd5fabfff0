"""An engine that dies at a numbered crash point, so that a test can look at what it leaves behind.

Product code carries no hook for this: `Points` wraps an engine's side effects from outside, in the process that is to
die. All of this runs in workers that have everything imported, so that an engine is a fork and starts in milliseconds;
it still is a process and a session of its own, with real git and real trials, and is really killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import msgspec

from loop import commands, engine, events, results
from loop.journal import Journal, read
from loop.remote import daemon
from loop.remote.client import Client, EngineGone
from loop.remote.daemon import Order
from loop.remote.server import Server
from loop.state import StudyState, fold
from loop.study import engine_log, journal_path, socket_path
from loop.trials import local
from loop.trials.local import LocalTrial, TrialSpec
from loop.workspace import Workspace

PRELOAD = ["loop.remote.daemon", "loop.engine", "loop.remote.server", "loop.remote.client", "loop.agents.search"]
"""What a fork finds imported; Optuna too, which the offline agent would load in the middle of a study."""
PRELOAD += ["git", "watchfiles", "psutil", "optuna", "optuna.samplers"]

PATIENCE = 150.0
"""Seconds that anything may take on a machine that is busy with other things."""

LAUNCHING = 4.0
"""Seconds that a restarted engine waits for a runner that its forerunner died in the middle of launching."""


class Points:
    """Names each crash point that an engine passes, in a file, and kills the engine at one of them."""

    def __init__(self, listing: Path, die_at: int | None) -> None:
        self._listing = listing.open("w")
        self._die_at = die_at
        self._passed = 0
        self._turn = threading.Lock()

    def reach(self, name: str, last_deed: Callable[[], None] = lambda: None) -> None:
        with self._turn:
            print(name, file=self._listing, flush=True)
            self._passed += 1
            if self._passed == self._die_at:
                last_deed()
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, *, when: Callable[..., bool] = lambda *_: True) -> None:
        """A point before and one after each call of `owner.name`."""
        real, what = getattr(owner, name), f"{owner.__name__.rpartition('.')[2]}.{name}"

        @functools.wraps(real)
        def watched(*arguments: Any, **options: Any) -> Any:
            if not when(*arguments):
                return real(*arguments, **options)
            self.reach(f"{what} before")
            returned = real(*arguments, **options)
            self.reach(f"{what} after")
            return returned

        setattr(owner, name, watched)

    def around_all(self) -> None:
        """`create_branch` is `advance`, and so not named; only a source that is there can be removed."""
        for name in ("append", "append_at_last"):
            self._around_append(name)
        for name in ("record", "commit", "export", "advance"):
            self.around(Workspace, name)
        self.around(results.Table, "write")
        self.around(shutil, "rmtree", when=lambda path, *_: Path(path).name == "source" and Path(path).exists())
        self._around_launch()
        serve = Server.start

        async def start(server: Server) -> None:
            self.reach("Server.start before")
            await serve(server)
            self.reach("Server.start after")

        Server.start = start  # type: ignore[method-assign]

    def _around_append(self, name: str) -> None:
        real = getattr(Journal, name)

        def append(journal: Journal, *happened: events.AnyEvent) -> list[events.Record]:
            what = f"{name} {' + '.join(type(event).__name__ for event in happened)}"
            self.reach(f"{what} before")
            records = real(journal, *happened)
            size = journal.path.stat().st_size
            # From the line feed alone to most of the line, which has more than 60 bytes.
            self.reach(f"{what} torn", lambda: os.truncate(journal.path, size - 1 - 7 * records[-1].seq % 60))
            self.reach(f"{what} after")
            return records

        setattr(Journal, name, append)

    def _around_launch(self) -> None:
        real = LocalTrial.launch

        async def launch(spec: TrialSpec) -> LocalTrial:
            self.reach("LocalTrial.launch before")
            trial = await real(spec)
            self.reach("LocalTrial.launch after")
            return trial

        LocalTrial.launch = launch  # type: ignore[method-assign,assignment]


class Mortal:
    """An engine as a child of this process, which it leaves as `daemon.start` would, but for the imports."""

    def __init__(self, order: Order, *, die_at: int | None = None) -> None:
        beside = Path(order.root).parent
        os.environ["XDG_RUNTIME_DIR"] = str(beside / "run")
        self.said = beside / f"said-{time.monotonic_ns()}"
        """What it told its starter: "ready", or why not."""
        self.said.touch()
        self.code: int | None = None
        """Its exit status once it has ended, negative where a signal ended it."""
        self.pid = os.fork()
        if not self.pid:
            try:
                _live(order, self.said, Points(beside / "passed", die_at))
            finally:
                os._exit(1)

    def kill(self) -> None:
        """Raises: RuntimeError where it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        if self.wait() != -signal.SIGKILL:
            raise RuntimeError(f"the engine ended by itself, with status {self.code}: {self.words()}")

    def words(self) -> str:
        return self.said.read_text().strip()

    def wait(self) -> int:
        """Its exit status. Raises: TimeoutError, and then it is killed."""
        deadline = time.monotonic() + PATIENCE
        while not self.ended():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError("the engine did not end by itself")
            time.sleep(0.005)
        assert self.code is not None
        return self.code

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None


def _live(order: Order, said: Path, points: Points) -> None:
    os.setsid()
    os.chdir(order.root)
    log = engine_log(Path(order.root), order.tag)
    log.parent.mkdir(parents=True, exist_ok=True)
    for descriptor, path in ((1, said), (2, log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    local.STARTING = LAUNCHING
    # An interpreter more at each start, for readings that no journal keeps.
    engine.machine_samples = _no_samples  # type: ignore[assignment]
    points.around_all()
    sys.argv = ["daemon", msgspec.json.encode(order).decode()]
    daemon.main()
    sys.stdout.flush()
    os._exit(0)


async def _no_samples(_: float) -> AsyncIterator[events.Machine]:
    await asyncio.Event().wait()
    yield  # type: ignore[misc]


def state(order: Order) -> StudyState:
    return fold(read(journal_path(Path(order.root), order.tag)))


def passed(order: Order) -> list[str]:
    """The crash points that the engine which was started last has passed; it died at the last one, if it died."""
    return (Path(order.root).parent / "passed").read_text().splitlines()


def hold(order: Order) -> Path:
    """While this file is there, trainings go on and on."""
    return journal_path(Path(order.root), order.tag).with_name("hold")


def trial_folder(order: Order) -> Path:
    """Of experiment 1, the first that a person can act on."""
    return journal_path(Path(order.root), order.tag).parent / "experiments" / "0001" / "trial-1"


def finish(order: Order) -> None:
    """Run the study to its end: until `order.experiments` proposals are decided in all. Raises: RuntimeError."""
    assert order.experiments is not None
    hold(order).unlink(missing_ok=True)
    left = max(0, order.experiments - state(order).tried)
    last = Mortal(msgspec.structs.replace(order, experiments=left))
    if code := last.wait():
        raise RuntimeError(f"the engine ended with status {code}: {last.words()}")


def survey(order: Order, scene: Scene) -> tuple[list[str], range]:
    """Run a study to its end: all crash points that it passes, and the numbers (from 1) of the scene's own."""
    mortal = Mortal(order)
    numbers = asyncio.run(SCENES[scene](Person(order, mortal))) if scene in SCENES else None
    if code := mortal.wait():
        raise RuntimeError(f"the engine ended with status {code}: {mortal.words()}")
    points = passed(order)
    return points, numbers or range(1, len(points) + 1)


def die_and_recover(order: Order, scene: Scene, number: int) -> str:
    """Run a study to its death at a crash point, and a second engine to the study's end. Returns the point's name."""
    mortal = Mortal(order, die_at=number)
    if scene in SCENES:
        with contextlib.suppress(EngineGone):
            asyncio.run(SCENES[scene](Person(order, mortal)))
    if mortal.wait() != -signal.SIGKILL:
        raise RuntimeError(f"the engine did not come to point {number}: it ended with status {mortal.code}")
    died = passed(order)[-1]
    finish(order)
    return died


class Person:
    """Who gives commands to an engine that may die of it."""

    def __init__(self, order: Order, mortal: Mortal) -> None:
        self.order, self._mortal = order, mortal

    async def until(self, condition: Callable[[], object]) -> None:
        """Raises: EngineGone."""
        while not condition():
            if self._mortal.ended():
                raise EngineGone("the engine has ended")
            await asyncio.sleep(0.01)

    async def until_it_trains(self) -> None:
        """Until experiment 1 is in mid-training."""
        clock = trial_folder(self.order) / "control" / "clock.json"
        await self.until(lambda: clock.exists() and passed(self.order)[-1] == "LocalTrial.launch after")

    async def until_the_end(self) -> None:
        with contextlib.suppress(EngineGone):
            await self.until(lambda: False)

    async def do(self, command: commands.AnyCommand) -> None:
        """Raises: EngineGone; AssertionError where the engine refuses."""
        client = await Client.connect(socket_path(Path(self.order.root), self.order.tag))
        try:
            reply = await client.do(command)
        finally:
            await client.close()
        assert reply.ok, reply.text


async def _reject(person: Person) -> range:
    await person.until_it_trains()
    since = len(passed(person.order))
    await person.do(commands.Reject(why="no"))
    await person.until_the_end()
    return range(since + 1, len(passed(person.order)) + 1)


async def _pause(person: Person) -> range:
    await person.until_it_trains()
    since = len(passed(person.order))
    await person.do(commands.Pause())
    await person.do(commands.Resume())
    done = range(since + 1, len(passed(person.order)) + 1)
    hold(person.order).unlink()
    return done


async def _keep(person: Person) -> range:
    """A discarded experiment, between two."""
    await person.until_it_trains()
    await person.do(commands.Pause())
    hold(person.order).unlink()
    await person.do(commands.Step())
    await person.until(lambda: state(person.order).experiments[1].stage == "trained")
    await person.do(commands.Step())
    await person.until(lambda: state(person.order).experiments[1].verdict)
    await person.until(lambda: passed(person.order)[-1] == "Table.write after")
    return await _and_go_on(person, commands.Keep(why="I want it"))


async def _undo(person: Person) -> range:
    """The baseline's only rival, rejected in mid-training, is to be run again after all."""
    await person.until_it_trains()
    await person.do(commands.Pause())
    await person.do(commands.Reject(why="a slip"))
    hold(person.order).unlink()
    await person.until(lambda: state(person.order).experiments[1].trials[-1].outcome)
    await person.until(lambda: passed(person.order)[-1] == "Table.write after")
    return await _and_go_on(person, commands.Undo(why="it was one"))


async def _and_go_on(person: Person, command: commands.AnyCommand) -> range:
    since = len(passed(person.order))
    await person.do(command)
    done = range(since + 1, len(passed(person.order)) + 1)
    await person.do(commands.Resume())
    return done


Scene = Literal["alone", "reject", "pause", "keep", "undo"]
"""What happens beside a study's own course; "alone": nothing does."""

SCENES: dict[str, Callable[[Person], Coroutine[Any, Any, range]]] = {
    "reject": _reject,
    "pause": _pause,
    "keep": _keep,
    "undo": _undo,
}
"""What a person does to the first experiment, which is held in mid-training; returns the numbers of the points met."""


def kill_at_random(order: Order, *, seed: int, kills: int) -> tuple[Counter[str], int]:
    """Kill the engine so often, at random instants, and let a last one decide `order.experiments` more.

    Returns how often it was killed at which stage, and how many proposals are then to be decided in all.

    The instants follow how long an engine takes to start here, so that a slow machine sees the same ones.
    """
    assert order.experiments is not None
    chance, stages = random.Random(seed), Counter[str]()
    unlimited = msgspec.structs.replace(order, experiments=None)
    begun = time.monotonic()
    mortal = Mortal(unlimited)
    while mortal.words() != "ready" and not mortal.ended():
        time.sleep(0.002)
    start = time.monotonic() - begun
    for _ in range(kills):
        time.sleep(chance.expovariate(0.4) * start)
        mortal.kill()
        current = state(order).current
        stages[current.stage if current else "between"] += 1
        mortal = Mortal(unlimited)
    mortal.kill()
    asked = state(order).tried + order.experiments
    finish(msgspec.structs.replace(order, experiments=asked))
    return stages, asked


def start_two(order: Order) -> list[tuple[int, int, str]]:
    """Two engines at once on one study: exit status, pid and first words of each, the one that served first."""
    both = [Mortal(order), Mortal(order)]
    return sorted((mortal.wait(), mortal.pid, mortal.words()) for mortal in both)


def kill_with_runner(order: Order) -> None:
    """Kill an engine in mid-training, and the trial's runner with it, and let another engine end the study."""
    mortal = Mortal(order)
    asyncio.run(Person(order, mortal).until_it_trains())
    started = msgspec.json.decode((trial_folder(order) / "started.json").read_bytes())
    mortal.kill()
    os.kill(started["runner"], signal.SIGKILL)
    # So it cannot end by itself: whoever finds it has to end it.
    os.kill(started["child"], signal.SIGSTOP)
    finish(order)
