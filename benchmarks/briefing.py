"""What an agent is told, in tokens, against the number of experiments; and what the failure bank saves in trials.

    .venv/bin/python benchmarks/briefing.py           # prints both tables
    .venv/bin/python benchmarks/briefing.py --check   # exits 1 where an aim is missed

The first table is of a simulated study of this repository's own script. In the second a scripted agent repeats itself
as a published trace does: 58 % of its proposals are exact repeats of earlier ones, in a layout of their own half of the
time. It proposes by the real rules (`guard.check`, and the desk's look for a patch known from an earlier incumbent),
and its changes are measured on a bowl, so that the incumbent moves on the way.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from loop import guard
from loop.briefing import brief, compose, tokens
from loop.constants import constant_changes, find_constants, set_constants
from loop.failures import Case, focus, marks, nearest, patch_mark
from loop.patch import unified_diff
from loop.state import BASELINE, Experiment, StudyState

ROOT = Path(__file__).parents[1]
SCRIPT = "trainer/train.py"
FROZEN = ("trainer/prepare.py", "trainer/corpus.py", "trainer/audit.py")
SIZES = (0, 10, 30, 100, 300, 1000, 3000)
LIMIT = 32_000
FLAT = 1.1
"""The briefing of 3000 experiments has at most so many times the tokens of that of 100."""

PROPOSALS = 200
REPEATS = 0.58
"""The share of a published trace's proposals that were exact repeats."""


def studied(count: int, files: dict[str, str]) -> tuple[StudyState, dict[int, str]]:
    """A study of `count` experiments on the script's constants, and the diff of each."""
    chance = random.Random(7)
    constants = [constant for constant in find_constants(files[SCRIPT]) if isinstance(constant.value, float | int)]
    best, diffs = 1.55, {}
    kept = Experiment(
        number=0, stage="decided", base="0", commit="0", agent=BASELINE, spec=1, started=0.0, verdict="keep",
        value=best, reason="the baseline, 4 seeds, σ 0.0055",
    )  # fmt: skip
    experiments = [kept]
    for number in range(1, count + 1):
        constant = chance.choice(constants)
        value = round(float(constant.value) * chance.choice((0.5, 0.7, 1.4, 2.0)), 6)
        new = set_constants(files[SCRIPT], {constant.name: repr(type(constant.value)(value))})
        delta = chance.gauss(0.004, 0.008)
        verdict = "crash" if chance.random() < 0.1 else "keep" if delta < -0.012 else "discard"
        diffs[number] = unified_diff(files, {SCRIPT: new})
        experiments.append(
            Experiment(
                number=number,
                stage="decided",
                base="0",
                commit=str(number),
                agent="openai:model",
                spec=1,
                started=float(number),
                verdict=verdict,
                value=None if verdict == "crash" else best + delta,
                delta=None if verdict == "crash" else delta,
                sigma=0.003,
                changes=constant_changes(files[SCRIPT], new),
                hypothesis=f"{constant.name} {constant.text} -> {value}: the loss still falls steeply when the rates "
                "begin to fall, and a step of this size has not been tried in this direction since the width changed.",
                reason="RuntimeError: CUDA out of memory" if verdict == "crash" else f"{delta:+.4f} (1.2 σ)",
            )
        )
    state = StudyState(
        experiments=experiments, incumbent=0, metric="val_bpb", budget=300.0, device="cuda", notes=["try fewer layers"]
    )
    return state, diffs


def size(count: int) -> tuple[int, float]:
    """Tokens of a briefing after `count` experiments, and the seconds that it takes to make."""
    files = {SCRIPT: (ROOT / SCRIPT).read_text()}
    context = {path: (ROOT / path).read_text() for path in FROZEN}
    state, diffs = studied(count, files)
    known = {number: marks(diff) for number, diff in diffs.items()}
    curve = tuple((at / 50, 4 - 2 * at / 50) for at in range(50))
    began = time.perf_counter()
    near = nearest(state, known, focus(state, known, files, state.notes), 6)
    briefing = brief(
        state,
        number=count + 1,
        program=(ROOT / "program.md").read_text(),
        files=files,
        context=context,
        baseline_files=files,
        feedback=(),
        left=("12.0 of 24 hours",),
    )
    stories = [(one, Case(diff=diffs[one.number], curve=curve)) for one in near]
    return tokens(compose(briefing, LIMIT, stories)), time.perf_counter() - began


def trace(files: dict[str, str]) -> Iterator[tuple[str, object, bool]]:
    """What the scripted agent proposes: a constant, its value, and whether in another layout."""
    chance, made = random.Random(3), []
    constants = [constant for constant in find_constants(files[SCRIPT]) if isinstance(constant.value, float)]
    for _ in range(PROPOSALS):
        if made and chance.random() < REPEATS:
            yield (*chance.choice(made), chance.random() < 0.5)
            continue
        while True:
            constant = chance.choice(constants)
            move = (constant.name, round(constant.value * chance.uniform(0.3, 3.0), 5))
            if move not in made:
                break
        made.append(move)
        yield (*move, False)


def saved(*, bank: bool) -> tuple[int, int, int]:
    """Proposals that were trained, that the guard refused, and that the bank handed back."""
    start = files = {SCRIPT: (ROOT / SCRIPT).read_text()}
    worth = {constant.name: constant.value for constant in find_constants(start[SCRIPT])}
    chance = random.Random(5)
    tried: dict[str, Experiment] = {}
    patches: set[str] = set()
    trained = refused = returned = 0
    best = 0.0
    for number, (name, value, odd) in enumerate(trace(start), 1):
        text = set_constants(files[SCRIPT], {name: repr(value)})
        if odd:
            text = text.replace(f"\n{name} = ", f"\n{name}  =  ", 1)
        changed = {SCRIPT: text}
        diff = unified_diff(files, changed)
        try:
            mark = guard.check(files, changed, editable=[SCRIPT], frozen=[], tried=tried, repeats=not bank)
        except guard.Refused:
            refused += 1
            continue
        if bank and patch_mark(diff) in patches:
            returned += 1
            continue
        trained += 1
        gain = chance.gauss(-0.004, 0.006) if value != worth.get(name) else 0.0
        keep = gain > best + 0.006
        tried[mark] = Experiment(
            number=number,
            stage="decided",
            base="0",
            agent="a",
            spec=1,
            started=0.0,
            verdict="keep" if keep else "discard",
        )
        if keep:
            best, files = gain, changed
        else:
            patches.add(patch_mark(diff))
    return trained, refused, returned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 where an aim is missed")
    check = parser.parse_args().check
    print(f"a briefing of at most {LIMIT} tokens\n\nexperiments   tokens   made in")
    sizes = {}
    for count in SIZES:
        sizes[count], seconds = size(count)
        print(f"{count:>11} {sizes[count]:>8} {1000 * seconds:>7.1f} ms")
    growth = max(sizes[count] for count in SIZES if count > 100) / sizes[100]
    print(f"from 100 experiments on it grows {growth:.2f} times\n")
    without, with_bank = saved(bank=False)[0], saved(bank=True)
    trained, refused, returned = with_bank
    share = 1 - trained / without
    print(f"{PROPOSALS} proposals, {100 * REPEATS:.0f} % of them exact repeats: without the bank {without} are trained")
    print(
        f"with it {trained}; {refused} repeats are refused, {returned} known from an earlier incumbent are handed back"
    )
    print(f"{without - trained} trials saved, {100 * share:.0f} %")
    missed = [
        *(["the briefing grows past 100 experiments"] if growth > FLAT else []),
        *([f"a briefing is over {LIMIT} tokens"] if max(sizes.values()) > LIMIT else []),
        *(["fewer than half of the trials are saved"] if share < 0.5 else []),
    ]
    for aim in missed:
        print(f"missed: {aim}", file=sys.stderr)
    return 1 if check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
