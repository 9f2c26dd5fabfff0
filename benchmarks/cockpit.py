"""What the cockpit costs and how fast it is: the real `labtop attach` on a real pseudo-terminal of 120x40.

    python benchmarks/cockpit.py --check

The engine's socket is the real one too; behind it stands a script that says what an engine would, as fast as it is told
to. `--check` exits 1 where an aim is missed. `--only NAME` (several times) measures a part: first-paint, keys, attach,
idle, steady, memory, stall.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import psutil

from loop import events as ev
from loop.config import load
from loop.events import AgentDelta, AnyEvent, AnyTelemetry, LogLines, Machine, Record, Step
from loop.remote.server import Server
from loop.state import StudyState
from loop.study import Study, socket_path

COLUMNS, LINES = 120, 40
TAG = "bench"


class Script:
    """An engine that does nothing but tell."""

    def __init__(self, root: Path) -> None:
        self.state = StudyState()
        self.study = Study(
            root=root, tag=TAG, config=load(root), device="cuda", budget=300.0, agent="llm", sandbox="bubblewrap"
        )
        self._listeners: list[Callable[[Record | AnyTelemetry], None]] = []

    def listen(self, listener: Callable[[Record | AnyTelemetry], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, *messages: AnyEvent | AnyTelemetry) -> None:
        for message in messages:
            said: Record | AnyTelemetry
            if isinstance(message, ev.Event):
                said = Record(seq=self.state.seq + 1, time=time.time(), event=cast(AnyEvent, message))
                self.state.apply(said)
            else:
                said = cast(AnyTelemetry, message)
            for listener in self._listeners:
                listener(said)

    def open(self, experiments: int) -> None:
        """A study of so many experiments, of which the last trains."""
        opened = ev.StudyOpened(
            tag=TAG, branch=f"labtop/{TAG}", base="b" * 40, metric="val_bpb", direction="minimize", budget=300.0,
            device="cuda", command="python train.py",
        )  # fmt: skip
        started = ev.EngineStarted(pid=os.getpid(), host="h", agent="llm", version="0", sandbox="bubblewrap")
        self.tell(opened, started, ev.SpecChanged(version=1, digest="d"))
        for number in range(experiments):
            self.tell(*self.experiment(number))
        self.tell(*self.experiment(experiments)[:3])

    def experiment(self, number: int) -> list[AnyEvent]:
        value = 1.7 - 0.2 * number / (number + 200) + 0.002 * (number % 7)
        best = self.state.best
        verdict: ev.Verdict = "keep" if best is None or value < (best.value or 9) else "discard"
        commit = f"{number:07x}".ljust(40, "0")
        return [
            ev.ProposalStarted(number=number, base="b" * 40, agent="llm" if number else "baseline", spec=1),
            ev.Proposed(
                number=number, commit=commit, hypothesis=f"a later warm-down helps at step {number}",
                expected_effect="about 0.002", changes=(ev.Change("WARMDOWN", "0.4", f"0.{number}"),), added=1,
                removed=1,
            ),
            ev.TrialStarted(number=number, trial=1, device="cuda", seed=1, budget=300.0),
            ev.TrialFinished(
                number=number, trial=1, outcome="ok", value=value, wall_seconds=301.0, cpu_seconds=290.0,
                summary={"peak_vram_mb": 45056.0},
            ),
            ev.Decided(number=number, verdict=verdict, reason="measured", value=value, delta=-0.001),
        ]  # fmt: skip


GPU = ev.Device(
    name="NVIDIA H200", utilisation=0.97, memory_used=61 << 30, memory_total=139 << 30, temperature=61.0, power=612.0,
    power_limit=700.0, clock=1980.0,
)  # fmt: skip


def machine() -> Machine:
    shares = tuple(random.random() for _ in range(16))
    return Machine(time=time.time(), cpu=shares, memory_used=12 << 30, memory_total=64 << 30, load=3.5, devices=(GPU,))


def step(number: int, at: int, of: int) -> Step:
    loss = 3.0 + 2.0 / (1 + at / 20) + random.gauss(0, 0.01)
    return Step(
        number=number, trial=1, time=300.0 * at / of, step=at, loss=loss, progress=at / of,
        tokens_per_second=random.gauss(1.23e6, 1e4), mfu=0.41,
    )  # fmt: skip


class Terminal:
    """`labtop attach` on a pseudo-terminal, and all that it writes, with the time it came."""

    def __init__(self, root: Path) -> None:
        self.came: list[tuple[float, bytes]] = []
        self._root = root
        self._reading = False

    def start(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment["XDG_STATE_HOME"] = str(self._root / "state")
        environment.pop("NO_COLOR", None)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Else each start compiles the cockpit anew: 80 ms.
        self.begun = time.monotonic()
        command = [str(Path(sys.executable).parent / "labtop"), "-C", str(self._root), "attach", "--tag", TAG]
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.process = psutil.Process(self._process.pid)
        self.read(True)

    def read(self, on: bool) -> None:
        """Read what is written, or stall."""
        loop = asyncio.get_running_loop()
        if on and not self._reading:
            loop.add_reader(self._master, self._take)
        elif not on and self._reading:
            loop.remove_reader(self._master)
        self._reading = on

    def _take(self) -> None:
        try:
            self.came.append((time.monotonic(), os.read(self._master, 1 << 16)))
        except OSError:
            self.read(False)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    async def shows(self, *words: bytes, since: int = 0, patience: float = 30.0) -> float:
        """The time at which the last of `words` was there, in what came from place `since` on."""
        end, seen, at = time.monotonic() + patience, b"", since
        while time.monotonic() < end:
            for moment, piece in self.came[at:]:
                seen, at = seen[-200_000:] + piece, at + 1
                if all(word in seen for word in words):
                    return moment
            await asyncio.sleep(0.001)
        raise SystemExit(f"the screen never showed {words}; its last bytes: {seen[-500:]!r}")

    async def close(self) -> None:
        self.read(False)
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        os.close(self._master)


@asynccontextmanager
async def stage(experiments: int) -> AsyncIterator[tuple[Script, Terminal, Server]]:
    """A study on its socket, and a terminal that is not started yet."""
    with tempfile.TemporaryDirectory(prefix="labtop-bench-") as folder:
        root = Path(folder) / "repository"
        (root / "run").mkdir(parents=True, mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(root / "run")
        (root / "train.py").write_text("")
        (root / "program.md").write_text("Make it better.\n")
        (root / "labtop.toml").write_text('command = "python train.py"\neditable = ["train.py"]\n')
        await asyncio.to_thread(subprocess.run, ["git", "init", "-q", str(root)], check=True)
        script, terminal = Script(root), Terminal(root)
        script.open(experiments)
        server = Server(cast(Any, script), cast(Any, None), socket_path(root, TAG))
        await server.start()
        try:
            yield script, terminal, server
        finally:
            with contextlib.suppress(AttributeError, ProcessLookupError):
                await terminal.close()
            await server.close()


class Figure(NamedTuple):
    what: str
    value: float
    unit: str
    aim: float

    @property
    def missed(self) -> bool:
        return self.value > self.aim


async def opened(terminal: Terminal, newest: int) -> float:
    """Start it, and the ms until the newest experiment's row, the header and the footer are on the screen."""
    terminal.start()
    return 1000 * (await terminal.shows(b"RUNNING", f"{newest:04d}".encode(), b"detach") - terminal.begun)


async def first_paint(experiments: int, times: int = 7) -> float:
    taken = []
    async with stage(experiments) as (script, _, _server):
        for _ in range(times):
            terminal = Terminal(script.study.root)
            taken.append(await opened(terminal, experiments))
            await terminal.close()
    return sorted(taken)[times // 2]


async def measure_first_paint(asked: argparse.Namespace) -> list[Figure]:
    return [
        Figure("first paint after `labtop attach`, 700 experiments, median of 7", await first_paint(700), "ms", 400)
    ]


async def measure_attach(asked: argparse.Namespace) -> list[Figure]:
    return [Figure("attach to a study of 10,000 experiments, median of 3", await first_paint(10_000, 3), "ms", 1500)]


async def flood(script: Script, number: int) -> None:
    """1,000 log lines and 100 pieces of the agent's words a second, ten steps, one reading of the machine."""
    begun, at = time.monotonic(), 0
    while True:
        script.tell(
            LogLines(number=number, trial=1, lines=tuple(f"a line of the log, of length {n}" for n in range(10)))
        )
        script.tell(AgentDelta(number=number, kind="text", text="some *more* words of it, " + "\n" * (at % 12 == 0)))
        if at % 10 == 0:
            script.tell(step(number, at // 10, 3000))
        if at % 100 == 0:
            script.tell(machine())
        at += 1
        await asyncio.sleep(max(0.0, begun + at / 100 - time.monotonic()))


async def measure_keys(asked: argparse.Namespace) -> list[Figure]:
    taken = []
    async with stage(1000) as (script, terminal, _):
        await opened(terminal, 1000)
        flooding = asyncio.create_task(flood(script, 1000))
        await asyncio.sleep(3)
        at, way = 1000, -1
        for _ in range(asked.keys):
            await asyncio.sleep(random.uniform(0.05, 0.2))
            way = {990: 1, 1000: -1}.get(at, way)
            at += way
            since, pressed = len(terminal.came), time.monotonic()
            terminal.press(b"\x1b[B" if way < 0 else b"\x1b[A")
            taken.append(1000 * (await terminal.shows(f"{at:04d}".encode(), since=since) - pressed))
        flooding.cancel()
    taken.sort()
    print(f"  key to paint: median {taken[len(taken) // 2]:.0f} ms, worst {taken[-1]:.0f} ms of {len(taken)}")
    return [Figure("key to paint under load, 99th percentile", taken[int(0.99 * len(taken))], "ms", 50)]


async def measure_idle(asked: argparse.Namespace) -> list[Figure]:
    async with stage(700) as (script, terminal, _):
        await opened(terminal, 700)
        script.tell(ev.Decided(number=700, verdict="discard", reason="measured", value=1.7), ev.Paused())
        await asyncio.sleep(3)
        came, busy = len(terminal.came), _cpu(terminal)
        await asyncio.sleep(asked.seconds)
        share = 100 * (_cpu(terminal) - busy) / asked.seconds
        count = sum(len(piece) for _, piece in terminal.came[came:])
    return [
        Figure("idle, the engine paused: CPU", share, "% of a core", 2),
        Figure("idle, the engine paused: written", count / asked.seconds, "bytes/s", 0),
    ]


async def measure_steady(asked: argparse.Namespace) -> list[Figure]:
    """A step in 100 ms, a reading in 1 s, a line of the log in 2 s: what a trainer gives."""
    async with stage(700) as (script, terminal, _):
        await opened(terminal, 700)
        for at in range(200):
            script.tell(step(700, at, 3000))
        await asyncio.sleep(3)
        came, busy, begun = len(terminal.came), _cpu(terminal), time.monotonic()
        for at in range(int(10 * asked.seconds)):
            script.tell(step(700, 200 + at, 3000))
            if at % 10 == 0:
                script.tell(machine())
            if at % 20 == 0:
                script.tell(LogLines(number=700, trial=1, lines=(f"evaluated at step {at}: {random.random():.4f}",)))
            await asyncio.sleep(max(0.0, begun + (at + 1) / 10 - time.monotonic()))
        share = 100 * (_cpu(terminal) - busy) / asked.seconds
        pieces = [piece for _, piece in terminal.came[came:]]
    packer = zlib.compressobj(6)
    packed = sum(len(packer.compress(piece) + packer.flush(zlib.Z_PARTIAL_FLUSH)) for piece in pieces)
    print(f"  steady training: {share:.1f} % of a core")
    return [
        Figure("steady training: written", sum(map(len, pieces)) / asked.seconds / 1000, "kB/s", 30),
        Figure("steady training: written, compressed as by ssh -C", packed / asked.seconds / 1000, "kB/s", 3),
    ]


async def measure_memory(asked: argparse.Namespace) -> list[Figure]:
    """Two days of 700 experiments of 300 s, as fast as the cockpit takes them in."""
    sizes = []
    async with stage(1) as (script, terminal, server):
        await opened(terminal, 1)
        for number in range(2, 702):
            proposed, finished = script.experiment(number)[:3], script.experiment(number)[3:]
            script.tell(*script.experiment(number - 1)[3:] if number == 2 else (), *proposed)
            for at in range(150):
                script.tell(step(number, at, 150))
                if at % 3 == 0:
                    script.tell(AgentDelta(number=number, kind="text", text=f"words {at} of it\n"), machine())
                    script.tell(LogLines(number=number, trial=1, lines=tuple(f"line {at} {n}" for n in range(12))))
            script.tell(*finished)
            while any(len(viewer._frames) > 200 for viewer in server._viewers):
                await asyncio.sleep(0.005)
            if number % 50 == 0:
                await asyncio.sleep(0.6)  # Some frames are drawn.
                sizes.append(terminal.process.memory_info().rss / 2**20)
                terminal.came.clear()
    print("  memory in MiB, every 50 experiments: " + " ".join(f"{size:.0f}" for size in sizes))
    # What 700 experiments themselves take is about 2 MiB; what is left is what would go on growing.
    return [Figure("memory over two days, from the 200th experiment to the 700th", sizes[-1] - sizes[3], "MiB more", 8)]


async def measure_stall(asked: argparse.Namespace) -> list[Figure]:
    async with stage(700) as (script, terminal, _):
        await opened(terminal, 700)
        flooding = asyncio.create_task(flood(script, 700))
        await asyncio.sleep(2)
        own, before = psutil.Process(), psutil.Process().memory_info().rss
        seen = terminal.process.memory_info().rss
        terminal.read(False)
        late, end = 0.0, time.monotonic() + asked.stall
        while time.monotonic() < end:
            tick = time.monotonic()
            await asyncio.sleep(0.05)
            late = max(late, time.monotonic() - tick - 0.05)
        grown = (own.memory_info().rss - before) / 2**20
        view = (terminal.process.memory_info().rss - seen) / 2**20
        flooding.cancel()
        script.tell(LogLines(number=700, trial=1, lines=("the line after the stall",)))
        since, resumed = len(terminal.came), time.monotonic()
        terminal.read(True)
        recovered = await terminal.shows(b"the line after the stall", since=since) - resumed
    print(f"  stalled: the view grew by {view:.0f} MiB, the engine was at worst {1000 * late:.0f} ms late")
    return [
        Figure(f"a terminal stalled for {asked.stall:.0f} s: what the engine's memory grew", grown, "MiB", 16),
        Figure("until the view has recovered", recovered, "s", 5),
    ]


def _cpu(terminal: Terminal) -> float:
    times = terminal.process.cpu_times()
    return times.user + times.system


PARTS: dict[str, Callable[[argparse.Namespace], Awaitable[list[Figure]]]] = {
    "first-paint": measure_first_paint,
    "keys": measure_keys,
    "attach": measure_attach,
    "idle": measure_idle,
    "steady": measure_steady,
    "memory": measure_memory,
    "stall": measure_stall,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/cockpit.py --only keys --keys 500"
    )
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="[all of them]")
    parser.add_argument("--keys", type=int, default=300, metavar="N", help="keys pressed under load [300]")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of idleness, and of training [20]")
    parser.add_argument("--stall", type=float, default=60.0, metavar="S", help="the terminal does not read [60]")
    parser.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    asked = parser.parse_args()
    random.seed(1)
    missed = []
    for name in asked.only or PARTS:
        for figure in asyncio.run(cast(Any, PARTS[name](asked))):
            aim = f"at most {figure.aim:g}" + ("  MISSED" if figure.missed else "")
            print(f"{figure.what}: {figure.value:.1f} {figure.unit}  ({aim})", flush=True)
            missed += [figure.what] if figure.missed else []
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if missed and asked.check:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
