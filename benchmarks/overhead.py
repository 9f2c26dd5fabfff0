"""What an experiment costs outside its training process: agent, guard, git, journal, runner, judge. In ms of wall time.

    python benchmarks/overhead.py --check

A real engine with the offline agent runs a stand-in training command that ends at once. An experiment's overhead is the
time from the verdict before it to its own, less the time its training process lived. `--check` exits 1 where an aim is
missed: at most 150 ms each (median), and the last experiments at most 1.2 times the 10th and its neighbours (median).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from loop.agents import make
from loop.config import load
from loop.engine import Engine
from loop.events import Decided, Record
from loop.journal import Journal
from loop.study import Study
from loop.trials.sandbox import choose
from loop.workspace import Workspace

LIMIT_MS, GROWTH = 150.0, 1.2
NEAR = 10
"""Experiments on either side of the 10th, and at the end, whose median is taken: one alone tells of the machine."""

SCRIPT = '''"""Answers at once with a smooth function of its constants, so that the agent has something to climb."""

import math

LR = 0.02  # 0.0001..1.0 (log)
DECAY = 0.1  # 0.0..1.0
MOMENTUM = 0.9  # 0.5..1.0
WIDTH = 64  # 8..1024 (log)
DEPTH = 4  # 1..64
WARMUP = 0.1  # 0.0..1.0

bpb = 1 + math.log(LR / 0.07) ** 2 / 50 + (DECAY - 0.3) ** 2 + (MOMENTUM - 0.8) ** 2 + math.log(WIDTH / 300) ** 2 / 90
bpb += (DEPTH - 20) ** 2 / 9000 + (WARMUP - 0.4) ** 2
print(f"---\\nval_bpb: {bpb:.6f}")
'''


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/overhead.py --experiments 200 --check"
    )
    parser.add_argument("--experiments", type=int, default=200, metavar="N", help="[200]")
    parser.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    asked = parser.parse_args()
    if asked.experiments < 4 * NEAR:
        parser.error(f"at least {4 * NEAR} experiments are wanted")
    with tempfile.TemporaryDirectory(prefix="labtop-bench-") as folder:
        make_repository(Path(folder))
        costs = asyncio.run(measure(Path(folder), asked.experiments))
    early, late = (statistics.median(part) for part in (costs[10 - NEAR : 10 + NEAR], costs[-2 * NEAR :]))
    median, growth = statistics.median(costs), late / early
    worst = sorted(costs)[int(0.95 * len(costs))]
    print(f"experiments {len(costs)}, each outside its training process: median {median:.0f} ms, 95th {worst:.0f} ms")
    print(f"around the 10th {early:.0f} ms, the last {2 * NEAR} {late:.0f} ms: {growth:.2f} times")
    missed = [f"median {median:.0f} ms is over {LIMIT_MS:.0f}"] if median > LIMIT_MS else []
    if growth > GROWTH:
        missed.append(f"growth {growth:.2f} is over {GROWTH}")
    if missed and asked.check:
        sys.exit("missed: " + "; ".join(missed))


def make_repository(root: Path) -> None:
    """A committed study of the stand-in."""
    (root / "train.py").write_text(SCRIPT)
    (root / "program.md").write_text("Make it better.\n")
    (root / "labtop.toml").write_text('command = "python train.py"\neditable = ["train.py"]\nbudget = 1\n')
    (root / ".gitignore").write_text(".labtop/\n")
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "a study"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)


async def measure(root: Path, experiments: int) -> list[float]:
    """The overhead in ms of each experiment after the baseline, in the study at `root`."""
    walls = choose("auto")
    study = Study(root=root, tag="bench", config=load(root), device="cpu", budget=1.0, agent="search", sandbox=walls)
    journal = Journal(study.journal)
    engine = Engine(
        study,
        journal=journal,
        workspace=Workspace(root, study.tag),
        agent=make("search", seed=1),
        experiments=experiments,
    )
    decided: list[float] = []
    with tqdm(total=experiments + 1, unit=" experiments", disable=None, leave=False) as bar:

        def note(message: object) -> None:
            if isinstance(message, Record) and isinstance(message.event, Decided):
                decided.append(message.time)
                bar.update()

        engine.listen(note)
        await engine.run()
    journal.close()
    trained = [experiment.trials[-1].wall_seconds for experiment in engine.state.experiments]
    return [
        1000 * (later - earlier - seconds)
        for (earlier, later), seconds in zip(pairwise(decided), trained[1:], strict=True)
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
