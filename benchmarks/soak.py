"""An engine at work for long: what it takes, how fast it answers, and whether all it promises holds on the way.

    python benchmarks/soak.py --experiments 2000 --check

A real engine with the offline agent runs a stand-in training command that ends at once, while people and accidents come
by at random: viewers that watch, hang up or stop reading; pauses, steps, notes, rejections, keeps and undos by hand,
proposals that wait for approval; edits of program.md; a trial's runner that is shot, a socket that is deleted. Every
hundredth experiment the journal, results.tsv, the branch and the refs are held against each other. `--check` exits 1
where an aim is missed: the engine's memory in the last quarter at most 1.05 times that of the second, and its answer to
a note likewise at most 1.5 times (medians).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from overhead import make_repository
from tqdm import tqdm

from loop import commands, journal, results
from loop.commands import AnyCommand
from loop.remote import wire
from loop.remote.client import Client, EngineGone
from loop.remote.daemon import Order, start
from loop.state import StudyState, fold
from loop.study import journal_path
from loop.trials import runner
from loop.workspace import Workspace

TAG = "soak"
MEMORY_GROWTH, ANSWER_GROWTH = 1.05, 1.5
EVERY = 100
"""Experiments between two checks of everything."""
SETTLING = 50
"""Looks, a fifth of a second apart, until what does not agree is a fault."""
LIFE = 0.2
"""Seconds that an experiment of the stand-in takes, about."""
BUSY = 0.02
"""Seconds between two looks at the study."""


class Soak:
    """One study under way, and what was seen of it."""

    def __init__(self, root: Path, socket: Path, experiments: int, chance: random.Random) -> None:
        self.root, self.socket, self.experiments, self.chance = root, socket, experiments, chance
        self.memory: list[float] = []
        """MiB of the engine, one reading an experiment."""
        self.answers: list[float] = []
        """Milliseconds until a note was acknowledged, one in ten experiments."""
        self.deeds: dict[str, int] = {}
        self.faults: list[str] = []

    async def run(self) -> StudyState:
        """To the study's end; returns its last state."""
        client = await self._connect()
        watching = asyncio.create_task(self._follow(client))
        with tqdm(total=self.experiments, unit=" experiments", disable=None, leave=False) as bar:
            seen = checked = 0
            while not watching.done():
                await asyncio.sleep(BUSY)
                tried = client.state.tried
                if tried > seen:
                    bar.update(tried - seen)
                    seen = tried
                    await self._measure(client)
                    await self._something(client)
                if tried - checked >= EVERY:
                    checked = tried
                    await self._hold_against_each_other(client)
        await watching
        await client.close()
        return client.state

    async def _connect(self) -> Client:
        for _ in range(600):
            with contextlib.suppress(EngineGone):
                return await Client.connect(self.socket)
            await asyncio.sleep(0.1)
        raise EngineGone("the engine did not come back to its socket within a minute")

    async def _follow(self, client: Client) -> None:
        async for _ in client.updates():
            pass

    async def _measure(self, client: Client) -> None:
        with contextlib.suppress(psutil.Error, EngineGone):
            self.memory.append(psutil.Process(client.state.engine_pid).memory_info().rss / 2**20)
            if client.state.tried % 10:
                return
            # At any moment of an experiment's life, not always right behind a verdict.
            await asyncio.sleep(self.chance.random() * LIFE)
            begun = time.perf_counter()
            await client.do(commands.Note(text=f"note {len(self.answers)}"))
            self.answers.append(1000 * (time.perf_counter() - begun))

    async def _something(self, client: Client) -> None:
        steering = (self._pause, self._step, self._reject, self._keep, self._undo, self._approve)
        accidents = (self._view, self._stall, self._edit, self._shoot, self._delete)
        deed = self.chance.choice((*steering, *accidents))
        self.deeds[deed.__name__[1:]] = self.deeds.get(deed.__name__[1:], 0) + 1
        with contextlib.suppress(EngineGone):
            await deed(client)

    async def _do(self, client: Client, *given: AnyCommand) -> None:
        for command in given:
            await client.do(command)

    async def _pause(self, client: Client) -> None:
        await self._do(client, commands.Pause(), commands.Resume())

    async def _step(self, client: Client) -> None:
        await self._do(client, *([commands.Step()] * 3), commands.Resume())

    async def _reject(self, client: Client) -> None:
        await self._do(client, commands.Reject(why="at random"))

    async def _keep(self, client: Client) -> None:
        await self._do(client, commands.Keep(why="at random"))

    async def _undo(self, client: Client) -> None:
        await self._do(client, commands.Undo(why="at random"))

    async def _approve(self, client: Client) -> None:
        """A proposal that waits for its person, who is not always quick enough."""
        await client.do(commands.Gate(on=True))
        await asyncio.sleep(self.chance.random())
        await self._do(client, commands.Approve(), commands.Gate(on=False))

    async def _view(self, _: Client) -> None:
        viewer = await self._connect()
        async for _update in viewer.updates():
            break
        await viewer.close()

    async def _stall(self, _: Client) -> None:
        """A viewer that asks for everything and reads nothing, as behind a line that is down."""
        _, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(wire.encode(wire.Watch(id=1)))
        asyncio.get_running_loop().call_later(5.0, writer.close)

    async def _edit(self, _: Client) -> None:
        (self.root / "program.md").write_text(f"Make it better. {self.chance.random()}\n")

    async def _shoot(self, client: Client) -> None:
        for process in psutil.Process(client.state.engine_pid).children():
            with contextlib.suppress(psutil.Error):
                if runner.__file__ in process.cmdline():
                    os.kill(process.pid, signal.SIGKILL)

    async def _delete(self, _: Client) -> None:
        self.socket.unlink(missing_ok=True)
        await (await self._connect()).close()

    async def _hold_against_each_other(self, client: Client) -> None:
        """Journal, results, branch and refs, while nothing moves."""
        await client.do(commands.Pause())
        found: list[str] = []
        for _ in range(SETTLING):
            # What was begun before the pause is still carried out.
            await asyncio.sleep(0.2)
            state = fold(await asyncio.to_thread(journal.read, journal_path(self.root, TAG)))
            found = await asyncio.to_thread(disagreements, self.root, state)
            if not found:
                break
        self.faults += found
        await client.do(commands.Resume())


def disagreements(root: Path, state: StudyState) -> list[str]:
    """Where what lies on the disk is not what the journal says."""
    found = []
    workspace = Workspace(root, TAG)
    refs = workspace.recorded()
    table = root / ".labtop" / TAG / "results.tsv"
    if table.read_text(encoding="utf-8") != results.render(state):
        found.append(f"after {state.tried}: results.tsv is not the journal's")
    if state.best is not None and workspace.branch_head() != state.best.commit:
        found.append(f"after {state.tried}: the branch does not stand on the incumbent")
    for experiment in state.experiments:
        if experiment.commit is not None and refs.get(experiment.number) != experiment.commit:
            found.append(f"experiment {experiment.number:04d} has no ref")
    if [experiment.number for experiment in state.experiments] != list(range(len(state.experiments))):
        found.append("an experiment is missing or doubled")
    return found


def left_behind(root: Path) -> list[str]:
    """The study's processes that are still there when its engine has had the time to leave."""
    for _ in range(60):
        left = subprocess.run(["pgrep", "-f", str(root)], capture_output=True, text=True).stdout.split()
        if not left:
            break
        time.sleep(0.5)
    return left


def quarters(values: list[float]) -> list[float]:
    """The median of each quarter."""
    size = max(1, len(values) // 4)
    return [statistics.median(values[at * size : (at + 1) * size]) for at in range(4)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/soak.py --experiments 2000 --check"
    )
    parser.add_argument("--experiments", type=int, default=2000, metavar="N", help="[2000]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what comes by at random [1]")
    parser.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    asked = parser.parse_args()
    if asked.experiments < 40:
        parser.error("at least 40 experiments are wanted")
    with tempfile.TemporaryDirectory(prefix="labtop-soak-") as folder:
        root = Path(folder) / "repository"
        (runtime := Path(folder) / "run").mkdir(mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        root.mkdir()
        make_repository(root)
        begun = time.monotonic()
        socket = start(Order(root=str(root), tag=TAG, device="cpu", experiments=asked.experiments))
        soak = Soak(root, socket, asked.experiments, random.Random(asked.seed))
        state = asyncio.run(soak.run())
        soak.faults += disagreements(root, state)
        soak.faults += [f"process {pid} was left behind" for pid in left_behind(root)]
    memory, answers = quarters(soak.memory), quarters(soak.answers)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in state.counts().items())
    print(f"{state.tried} experiments ({counts}) in {time.monotonic() - begun:.0f} s; {state.mode_reason}")
    print("came by: " + ", ".join(f"{name} {count}" for name, count in sorted(soak.deeds.items())))
    print("engine's memory by quarter, MiB: " + ", ".join(f"{value:.1f}" for value in memory))
    print("answer to a note by quarter, ms: " + ", ".join(f"{value:.1f}" for value in answers))
    print("held against each other: " + ("; ".join(soak.faults) or "everything agrees"))
    missed = list(soak.faults)
    for name, (_, second, _, last), most in (("memory", memory, MEMORY_GROWTH), ("answer", answers, ANSWER_GROWTH)):
        if last > most * second:
            missed.append(f"{name} grew {last / second:.2f} times, over {most}")
    if missed and asked.check:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
