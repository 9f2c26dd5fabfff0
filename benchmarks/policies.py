"""Two real studies of the trainer on the same proposals, one under `greedy` and one under `confirm`.

    python benchmarks/policies.py --fresh 10

Both engines get the same list of changes to the constants of train.py, in the same order, each against whatever they
have kept so far. Then the baseline and both final incumbents are measured again, on seeds that neither study has used,
and that is printed beside what a study believed of its incumbent. Takes an hour on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from loop.agents import AgentEvent, Desk, Edit, Failed, Proposal
from loop.briefing import Briefing
from loop.config import load
from loop.constants import set_constants
from loop.engine import Engine
from loop.events import Decided, Record
from loop.journal import Journal
from loop.state import StudyState
from loop.study import Study
from loop.trials.sandbox import choose
from loop.workspace import Workspace

REPOSITORY = Path(__file__).parents[1]
SCRIPT = "trainer/train.py"
FRESH_SEED = 900_001

MOVES = (
    ("ROPE_BASE", "20000.0"),
    ("MOMENTUM", "0.9"),
    ("FINAL_LR", "0.05"),
    ("BETA2", "0.99"),
    ("WARMUP", "0.02"),
    ("EMBEDDING_LR", "1.8"),
    ("MATRIX_LR", "0.045"),
    ("DEPTH", "1"),
    ("WEIGHT_DECAY", "0.05"),
    ("MLP_RATIO", "3"),
    ("BETA1", "0.8"),
    ("WINDOWS", '"L"'),
)
"""As an agent makes them in a night: some help, some do nothing, some harm."""


class Replay:
    """An agent that makes the moves in their order."""

    name = "replay"
    repairs = False

    async def probe(self) -> tuple[str, ...]:
        return ()

    async def propose(self, briefing: Briefing, desk: Desk) -> AsyncGenerator[AgentEvent, None]:
        await asyncio.sleep(0)
        name, value = MOVES[briefing.number - 1]
        old = briefing.files[SCRIPT]
        try:
            new = set_constants(old, {name: value}, briefing.device)
        except (KeyError, ValueError) as error:
            yield Failed(str(error))
            return
        yield Proposal(f"{name} -> {value}", "unknown", (Edit(SCRIPT, old, new),))


async def study(
    root: Path, tag: str, policy: Literal["greedy", "confirm"], *, seed: int, replicates: int, experiments: int
) -> StudyState:
    """A study of the commit that `root` stands on, from its baseline to its end."""
    settings = replace(load(root), policy=policy, seed=seed, replicates=replicates)
    walls = choose(settings.sandbox)
    terms = Study(root=root, tag=tag, config=settings, device="cpu", budget=20.0, agent="replay", sandbox=walls)
    journal = Journal(terms.journal)
    engine = Engine(terms, journal=journal, workspace=Workspace(root, tag), agent=Replay(), experiments=experiments)

    def tell(message: object) -> None:
        if isinstance(message, Record) and isinstance(message.event, Decided):
            event = message.event
            print(f"{tag:<10}{event.number:04d} {event.verdict:<8}{event.reason}", file=sys.stderr, flush=True)

    engine.listen(tell)
    await engine.run()
    journal.close()
    return engine.state


def clone(place: Path, commit: str, source: Path) -> Path:
    """A repository of its own that stands on `commit` of `source`."""
    subprocess.run(["git", "clone", "-q", "--no-checkout", str(source), str(place)], check=True)
    subprocess.run(["git", "fetch", "-q", str(source), commit], cwd=place, check=True)
    subprocess.run(["git", "checkout", "-q", "--detach", commit], cwd=place, check=True)
    return place


async def run(place: Path, head: str, experiments: int, fresh: int) -> None:
    roots = {policy: clone(place / policy, head, REPOSITORY) for policy in ("greedy", "confirm")}
    # Side by side, so that what else the machine does befalls both.
    greedy, confirm = await asyncio.gather(
        study(roots["greedy"], "greedy", "greedy", seed=1337, replicates=1, experiments=experiments),
        study(roots["confirm"], "confirm", "confirm", seed=1337, replicates=4, experiments=experiments),
    )
    ends = {"baseline": head}
    sources = {"baseline": REPOSITORY}
    for name, state in (("greedy", greedy), ("confirm", confirm)):
        assert state.best is not None and state.best.commit is not None
        ends[name], sources[name] = state.best.commit, roots[name]

    async def again(name: str) -> list[float]:
        root = clone(place / f"{name}-again", ends[name], sources[name])
        state = await study(root, "again", "confirm", seed=FRESH_SEED, replicates=fresh, experiments=0)
        return list(state.experiments[0].values.values())

    measured: dict[str, list[float]] = {}
    limit = asyncio.Semaphore(2)

    async def one(name: str) -> None:
        async with limit:
            measured[name] = await again(name)

    await asyncio.gather(*map(one, ends))
    report(greedy, confirm, measured)


def report(greedy: StudyState, confirm: StudyState, measured: dict[str, list[float]]) -> None:
    print(f"{'proposal':<28}{'greedy':<30}confirm")
    for number, (name, value) in enumerate(MOVES[: len(confirm.experiments) - 1], 1):
        told = [_told(state, number) for state in (greedy, confirm)]
        print(f"{number:04d} {name + ' -> ' + value:<23}{told[0]:<30}{told[1]}")
    zero = measured["baseline"]
    print(f"\n{'':<12}{'trials':>7}{'kept':>6}{'believed':>12}{f'{len(zero)} fresh seeds':>22}{'gain':>22}")
    print(f"{'baseline':<37}{_mean(zero):>22}")
    for name, state in (("greedy", greedy), ("confirm", confirm)):
        assert state.best is not None
        trials = sum(len(experiment.trials) for experiment in state.experiments)
        gains = [a - b for a, b in zip(zero, measured[name], strict=True)]
        counted = f"{trials:>7}{state.counts()['keep']:>6}{state.best.value:>12.4f}"
        print(f"{name:<12}{counted}{_mean(measured[name]):>22}{_mean(gains):>22}")
    sigma, paired = confirm.noise.sigma, confirm.noise.paired
    print(f"\nnoise as `confirm` found it: σ {sigma:.4f} from seed to seed, {paired:.4f} of a difference on one seed")


def _told(state: StudyState, number: int) -> str:
    experiment = state.experiments[number]
    delta = "" if experiment.delta is None else f"{experiment.delta:+.4f}"
    error = "" if experiment.sigma is None or len(experiment.trials) < 2 else f" ± {experiment.sigma:.4f}"
    times = f" ×{len(experiment.trials)}" if len(experiment.trials) > 1 else ""
    return f"{experiment.verdict} {delta}{error}{times}"


def _mean(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.4f} ± {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/policies.py --experiments 6 --fresh 4"
    )
    parser.add_argument("--experiments", type=int, default=len(MOVES), metavar="N", help=f"[{len(MOVES)}]")
    parser.add_argument("--fresh", type=int, default=10, metavar="N", help="seeds for the final measure [10]")
    parser.add_argument("--keep", metavar="FOLDER", help="where the two studies are left [a temporary folder]")
    asked = parser.parse_args()
    if not 1 <= asked.experiments <= len(MOVES) or asked.fresh < 2:
        parser.error(f"1 to {len(MOVES)} experiments and at least 2 fresh seeds are wanted")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory(prefix="labtop-policies-") as folder:
        asyncio.run(run(Path(asked.keep or folder), head.stdout.strip(), asked.experiments, asked.fresh))


if __name__ == "__main__":
    main()
