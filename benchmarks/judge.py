"""What each policy of the judge makes of the same proposals, in studies whose true effects are known.

    python benchmarks/judge.py --check

A world has a noise (what a seed adds to every script, and the rest) and proposals: a share is truly better, a share
changes nothing, the others are worse, with exponential effects on top of whatever was kept before. So a false keep that
changes nothing costs nothing here, and there is always a next idea: both flatter `greedy`. Every policy gets the same
proposals with the same luck and plays until the same number of trials is spent, the baseline's among them.
`--check` exits 1 where `confirm` keeps more that is no better than it states in a measured world, or ends worse there
than `greedy`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from multiprocessing import Pool

import numpy as np
from tqdm import tqdm

from loop.judge import More, Rules, judge
from loop.noise import Noise, estimate

CHUNK = 50
"""Studies that a process plays at a time."""


@dataclass(frozen=True)
class World:
    """Effects and noise in bpb."""

    name: str
    seed: float
    """Standard deviation of what a seed adds to any script."""
    rest: float
    """Of what it adds to this one, and of what differs from run to run."""
    gain: float
    """Mean of the effects that are better."""
    loss: float
    better: float = 0.1
    null: float = 0.3
    wild: float = 1.0
    """A candidate's own rest is up to so many times larger."""
    step: float = 0.0
    """By so much, to either side, all values move at some trial: two hours of one day were that far apart."""
    measured: bool = False


CPU = World("CPU, as measured", seed=0.003, rest=0.0043, gain=0.005, loss=0.015, measured=True)
"""The trainer at 20 s: five scripts on four seeds had a sigma of 0.0052, and of 0.0060 between two on one seed. What
was tried in it gained 0.004 to 0.0125 and lost 0.0001 to 0.05 (RESULTS.md)."""
GPU = World("GPU, as measured", seed=0.00015, rest=0.00015, gain=0.001, loss=0.003, better=0.12, measured=True)
"""Five minutes of an H100 or H200: sigma 1.4e-4 on one seed, up to 3e-4 over seeds. A published log kept 22 changes of
125 for 0.0282, 14 of them for less than 0.0007 each."""
WORLDS = (
    CPU,
    GPU,
    replace(CPU, name="few gains", better=0.03, measured=False),
    replace(CPU, name="nothing is better", better=0.0, measured=False),
    replace(CPU, name="all others equal", null=0.9, measured=False),
    replace(CPU, name="late in a study", gain=0.003, better=0.05, null=0.0, loss=0.004, measured=False),
    replace(CPU, name="noisy candidates", wild=2.0, measured=False),
    replace(CPU, name="seeds pair well", seed=0.0048, rest=0.002, measured=False),
    replace(CPU, name="seeds do not pair", seed=0.0, rest=0.0052, measured=False),
    replace(CPU, name="the machine changes", step=0.0145, measured=False),
)
POLICIES: dict[str, tuple[Rules, bool]] = {
    "greedy": (Rules(policy="greedy"), False),
    "margin": (Rules(policy="margin"), False),
    "confirm": (Rules(), False),
    "+again": (Rules(), True),
}
"""Rules by name, and whether, before anything is kept, the incumbent runs again on the same seeds and only that counts.
The margin is two standard deviations of the world."""


@dataclass
class Tally:
    """What became of one study; effects in bpb, better is positive."""

    judged: int = 0
    keeps: int = 0
    false: int = 0
    better: int = 0
    missed: int = 0
    trials: int = 0
    gain: float = 0.0
    curse: float = 0.0
    """How much too good the incumbent is believed to be."""


class Study:
    """Proposals and luck, drawn before any policy plays."""

    def __init__(self, world: World, number: int, trials: int, seeds: int) -> None:
        draw = np.random.default_rng([number, WORLDS.index(world)])
        kind, size = draw.random(trials), draw.exponential(size=trials)
        effects = np.where(kind < world.better, world.gain * size, -world.loss * size)
        effects[(kind >= world.better) & (kind < world.better + world.null)] = 0.0
        own = world.rest * draw.uniform(1, world.wild, size=(trials, 1))
        self.effects: list[float] = effects.tolist()
        self.rest: list[list[float]] = (own * draw.standard_normal((trials, seeds))).tolist()
        self.baseline: list[float] = (world.rest * draw.standard_normal(seeds)).tolist()
        self.shared: list[float] = (world.seed * draw.standard_normal(seeds)).tolist()
        self.again: list[float] = (world.rest * draw.standard_normal(trials)).tolist()
        self.step = world.step * float(draw.choice([-1, 1]))
        self.step_at = int(draw.integers(trials))


def play(study: Study, rules: Rules, trials: int, *, again: bool) -> Tally:
    """One study under `rules`, as the engine runs it."""
    tally = Tally()
    spent = 0

    def measure(level: float, rest: float, seed: int) -> float:
        nonlocal spent
        spent += 1
        return level + study.shared[seed - 1] + rest + (study.step if spent > study.step_at else 0.0)

    noise = Noise()
    incumbent: dict[int, float] = {}
    while isinstance(asked := judge(incumbent, {}, noise, rules), More):
        incumbent[asked.seed] = measure(0.0, study.baseline[asked.seed - 1], asked.seed)
    replicates = [list(incumbent.values())]
    differences: list[list[float]] = []
    noise = estimate(replicates)
    level, luck = 0.0, study.baseline
    for effect, rest in zip(study.effects, study.rest, strict=True):
        candidate: dict[int, float] = {}
        checked = not again
        while True:
            asked = judge(candidate, incumbent, noise, rules)
            if isinstance(asked, More):
                if spent >= trials:
                    break
                if asked.of == "candidate":
                    candidate[asked.seed] = measure(level - effect, rest[asked.seed - 1], asked.seed)
                else:
                    incumbent[asked.seed] = measure(level, luck[asked.seed - 1], asked.seed)
            elif asked.verdict == "discard" or checked:
                break
            else:
                checked = True
                luck = [study.again[(spent + place) % trials] for place in range(len(luck))]
                seeds = [seed for seed in candidate if seed in incumbent]
                incumbent = {seed: measure(level, luck[seed - 1], seed) for seed in seeds}
        if isinstance(asked, More):
            break
        tally.judged += 1
        tally.better += effect > 0
        if asked.pairs > 1:
            differences.append([value - incumbent[seed] for seed, value in candidate.items() if seed in incumbent])
            noise = estimate(replicates, differences)
        if asked.verdict == "keep":
            tally.keeps += 1
            tally.false += effect <= 0
            level, luck, incumbent = level - effect, rest, candidate
        else:
            tally.missed += effect > 0
    tally.trials, tally.gain = spent, -level
    tally.curse = level - sum(incumbent.values()) / len(incumbent)
    return tally


def chunk(order: tuple[int, int, int, int]) -> tuple[int, dict[str, np.ndarray]]:
    """Some studies of one world under every policy: a row of a tally's numbers each."""
    place, first, count, trials = order
    world = WORLDS[place]
    rows: dict[str, list[tuple[float, ...]]] = {}
    for number in range(first, first + count):
        study = Study(world, number, trials, max(rules.cap for rules, _ in POLICIES.values()))
        for name, rules, again in policies(world):
            tally = play(study, rules, trials, again=again)
            rows.setdefault(name, []).append(tuple(getattr(tally, field.name) for field in fields(Tally)))
    return place, {name: np.array(found, dtype=float) for name, found in rows.items()}


def policies(world: World) -> Iterator[tuple[str, Rules, bool]]:
    for name, (rules, again) in POLICIES.items():
        if again and not world.step:
            continue
        margin = 2 * math.hypot(world.seed, world.rest) if rules.policy == "margin" else 0.0
        yield name, Rules(policy=rules.policy, margin=margin), again


class Summary:
    """One policy in one world, over all studies."""

    def __init__(self, rows: np.ndarray) -> None:
        column = dict(zip((field.name for field in fields(Tally)), rows.T, strict=True))
        studies = len(rows)
        self.judged, self.keeps = column["judged"].mean(), column["keeps"].mean()
        self.false, self.false_error = _ratio(column["false"], column["keeps"])
        self.type_one = column["false"].sum() / (column["judged"].sum() - column["better"].sum())
        self.missed, _ = _ratio(column["missed"], column["better"])
        self.each = column["trials"].sum() / column["judged"].sum()
        self.gain, self.gain_error = column["gain"].mean(), column["gain"].std(ddof=1) / math.sqrt(studies)
        self.curse = column["curse"].mean()
        self.gains = column["gain"]

    def row(self, name: str) -> str:
        return (
            f"  {name:<10}{self.judged:>8.1f}{self.keeps:>7.2f}{100 * self.false:>8.2f} ±{196 * self.false_error:<5.2f}"
            f"{1000 * self.type_one:>7.2f}{100 * self.missed:>8.1f}{self.each:>8.2f}"
            f"{self.gain:>11.5f} ±{self.gain_error:<8.5f}{self.curse:>9.5f}"
        )


HEAD = (
    f"  {'policy':<10}{'judged':>8}{'keeps':>7}{'false keeps %':>15}{'per mil':>8}{'missed %':>9}{'trials':>7}"
    f"{'true gain':>12}{'':9}{'curse':>10}"
)


def _ratio(part: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    """A share over studies and its standard error: the decisions of one study hang together."""
    if not whole.sum():
        return math.nan, math.nan
    share = part.sum() / whole.sum()
    return share, math.sqrt(((part - share * whole) ** 2).sum()) / whole.sum()


def verdict(world: World, found: dict[str, Summary]) -> tuple[str, bool]:
    """One sentence about `confirm`, and whether it does what it should."""
    ours, rules = found["confirm"], Rules()
    if world.better:
        held = ours.false - 1.96 * ours.false_error <= rules.false_keep
        said = f"{'holds' if held else 'DOES NOT HOLD'} its {100 * rules.false_keep:g} % ({100 * ours.false:.2f} %)"
    else:
        held = ours.type_one <= rules.alpha
        said = f"keeps {1000 * ours.type_one:.2f} of 1000 that are no better, of {1000 * rules.alpha:.2f} it may"
    ends = []
    for name in ("greedy", "margin"):
        lead = ours.gains - found[name].gains
        mean, error = lead.mean(), lead.std(ddof=1) / math.sqrt(len(lead))
        how = "better than" if mean > 2 * error else "WORSE than" if mean < -2 * error else "as well as"
        ends.append(f"{how} {name} ({mean:+.5f} ± {error:.5f} bpb)")
    return f"confirm {said}; it ends {', '.join(ends)}", held and not ends[0].startswith("WORSE")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/judge.py --studies 1000"
    )
    parser.add_argument("--studies", type=int, default=10_000, metavar="N", help="of each world [10000]")
    parser.add_argument("--trials", type=int, default=150, metavar="N", help="of each study [150: a night on a GPU]")
    parser.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    asked = parser.parse_args()
    if asked.studies < 2 or asked.trials < 20:
        parser.error("at least 2 studies of 20 trials are wanted")
    orders = [
        (place, first, min(CHUNK, asked.studies - first), asked.trials)
        for place in range(len(WORLDS))
        for first in range(0, asked.studies, CHUNK)
    ]
    rows: list[dict[str, list[np.ndarray]]] = [{} for _ in WORLDS]
    with Pool(2) as pool, tqdm(total=len(WORLDS) * asked.studies, unit=" studies", disable=None, leave=False) as bar:
        for place, found in pool.imap_unordered(chunk, orders):
            for name, part in found.items():
                rows[place].setdefault(name, []).append(part)
            bar.update(len(part))
    print(f"{asked.studies} studies of {asked.trials} trials in each world; {Rules()}")
    print(
        "false keeps: the share of keeps truly no better; per mil: kept of 1000 that are no better; missed: the share"
    )
    print(
        "of better ones discarded; trials: of a proposal; curse: how much too good the incumbent is believed, in bpb\n"
    )
    missed = []
    for world, parts in zip(WORLDS, rows, strict=True):
        found_here = {name: Summary(np.concatenate(part)) for name, part in parts.items()}
        print(f"{world.name}\n{HEAD}")
        for name, summary in found_here.items():
            print(summary.row(name))
        said, good = verdict(world, found_here)
        print(f"  {said}\n")
        if world.measured and not good:
            missed.append(f"{world.name}: {said}")
    if missed and asked.check:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
