"""The engine as a process of its own: it outlives the terminal that started it.

`start` is called by whoever wants an engine; `python -m loop.remote.daemon` is what it starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import msgspec

from loop.study import engine_log, journal_path, socket_path

MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc gives each thread a heap of its own, and puts ever larger blocks there: over days that adds up. From 64 KiB
on, as parts of a snapshot are, a block is a mapping of its own, and leaves no hole behind."""


TURN = 0.001
"""Seconds that a thread may compute while the event loop waits to run: an agent that thinks must not slow an answer."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the new engine is to do. None: as the settings say, or without end."""

    root: str
    tag: str
    agent: str | None = None
    device: str | None = None
    budget: float | None = None
    experiments: int | None = None


class StartFailed(Exception):
    """The engine did not start; the message is its own."""


def start(order: Order) -> Path:
    """Start an engine, detached from this terminal, and return its socket once it answers. Raises: StartFailed."""
    root = Path(order.root)
    log = engine_log(root, order.tag)
    log.parent.mkdir(parents=True, exist_ok=True)
    (root / ".labtop" / ".gitignore").write_text("*\n")
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "loop.remote.daemon", msgspec.json.encode(order).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=root,
            env={**os.environ, **MALLOC},
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline().decode().strip()
    if said != "ready":
        raise StartFailed(said or f"the engine ended before it was ready; {log} says why")
    return socket_path(root, order.tag)


async def _serve(order: Order) -> None:
    # Imported here: the starter needs none of it, and the cockpit starts engines.
    from loop import agents, config
    from loop.engine import Engine
    from loop.inbox import Inbox
    from loop.journal import Journal
    from loop.remote.server import Server
    from loop.state import fold
    from loop.study import Study
    from loop.trials import sandbox
    from loop.trials.telemetry import detect_device
    from loop.workspace import Workspace

    root = Path(order.root)
    settings = config.load(root)
    spec = order.agent or settings.agent
    agent = agents.make(spec, seed=settings.seed, asking=settings.asking)
    walls = sandbox.choose(settings.sandbox)
    # The journal's lock comes first: with it, the locks that a dead engine left in git are nobody's.
    journal = Journal(journal_path(root, order.tag))
    workspace = Workspace(root, order.tag)
    opened = fold(journal.records)
    device = order.device or opened.device or detect_device()
    budget = order.budget or opened.budget or settings.budget_for(device)
    study = Study(root=root, tag=order.tag, config=settings, device=device, budget=budget, agent=spec, sandbox=walls)
    engine = Engine(study, journal=journal, workspace=workspace, agent=agent, experiments=order.experiments)
    engine.check_terms()
    inbox = Inbox(engine)
    server = Server(engine, inbox, socket_path(root, order.tag))
    await server.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, inbox.stop_soon)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    print("ready", flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        await engine.run()
    finally:
        await server.close()
        journal.close()


def main() -> None:
    """Serve until the engine ends. Before "ready", the one line on stdout says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m loop.remote.daemon", description=__doc__)
    parser.add_argument("order", help="what to do, as JSON; `labtop run` writes it")
    order = msgspec.json.decode(parser.parse_args().order, type=Order)
    sys.setswitchinterval(TURN)
    try:
        asyncio.run(_serve(order))
    except Exception as error:
        traceback.print_exc()
        print(" ".join(str(error).split()) or type(error).__name__, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
