"""How far long video drifts, by the way the model was fine-tuned: every measure against the small world's truth.

    python benchmarks/drift.py --seeds 3 --check

All ways start from the same weights, take the same number of steps, and are rolled out by the same procedure from the
same held-out scenes. `--check` exits 1 where an aim is missed in any seed: recycled at clip 50 at most half of plain's
background error and below hand-made noise's, at clip 1 at most 2 % above plain's; a recycling step at most 1.15 times a
plain one; `nearest` at most linear in a cell's entries.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, replace
from multiprocessing import get_context

import torch

from video_recycle import tiny
from video_recycle.bank import ErrorBank
from video_recycle.demo import WAYS
from video_recycle.flow import grid
from video_recycle.measure import NAMES
from video_recycle.train import Trainer

CLIPS = (1, 10, 50)
SCENES = 16
Found = dict[str, dict[int, dict[str, float]]]
"""By way, clip and measure."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/drift.py --seeds 3 --check"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="[3]")
    parser.add_argument("--steps", type=int, default=tiny.FINE_TUNING.steps, help=f"[{tiny.FINE_TUNING.steps}]")
    parser.add_argument("--processes", type=int, default=2, help="seeds that run at a time [2]")
    parser.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    asked = parser.parse_args()
    missed = costs()
    with get_context("spawn").Pool(asked.processes) as pool:
        runs = pool.starmap(one, [(seed, asked.steps) for seed in range(asked.seeds)], chunksize=1)
    print(f"\n{asked.steps} steps, {asked.seeds} seeds, {SCENES} held-out scenes each: mean ± standard deviation\n")
    print(f"{'':<24}{'clip':>5}" + "".join(f"{name:>17}" for name in NAMES))
    for name in runs[0]:
        for clip in CLIPS:
            shown = [spread([run[name][clip][field] for run in runs]) for field in NAMES]
            print(f"{name if clip == 1 else '':<24}{clip:>5}" + "".join(f"{text:>17}" for text in shown))
    print()
    for scale, noisy in (("LoRA", "hand-made noise, LoRA"), ("all weights", "hand-made noise, all")):
        for seed, run in enumerate(runs):
            errors = {
                way: [run[name][clip]["background"] for clip in (1, 50)]
                for way, name in (("plain", f"plain, {scale}"), ("noise", noisy), ("recycled", f"recycled, {scale}"))
            }
            (start, late), plain, noise = errors["recycled"], errors["plain"], errors["noise"]
            met = late <= plain[1] / 2, late < noise[1], start <= 1.02 * plain[0]
            missed += met.count(False)
            print(
                f"{scale}, seed {seed}: at clip 50 {late / plain[1]:.2f} of plain's (at most 0.50), "
                f"{late / noise[1]:.2f} of hand-made noise's (below 1); at clip 1 {start / plain[0]:.3f} of plain's "
                f"(at most 1.020): {', '.join('met' if good else 'MISSED' for good in met)}"
            )
    sys.exit(bool(asked.check and missed))


def one(seed: int, steps: int) -> Found:
    """Every way with one seed."""
    torch.set_num_threads(1)
    world = tiny.starts(SCENES, seed)
    settings = replace(tiny.FINE_TUNING, steps=steps, seed=seed)
    base = tiny.base()
    drifts = {"copy the last frame": tiny.drift(tiny.copied(world, CLIPS[-1]), world)}
    drifts["base"] = tiny.drift(tiny.play(base, world, CLIPS[-1], seed=seed), world)
    for name, (method, lora) in WAYS.items():
        began = time.monotonic()
        model = tiny.fine_tuned(base, method, lora=lora, settings=settings)
        drifts[name] = tiny.drift(tiny.play(model, world, CLIPS[-1], seed=seed), world)
        print(
            f"seed {seed}, {name}: {time.monotonic() - began:.0f} s, at clip 50 {drifts[name][-1].background:.4f}",
            flush=True,
        )
    return {name: {clip: asdict(found[clip - 1]) for clip in CLIPS} for name, found in drifts.items()}


def costs() -> int:
    """Print what a step and a replacement cost; returns how many aims were missed."""
    torch.set_num_threads(1)
    took: dict[str, list[float]] = {"plain": [], "recycle": []}
    base = tiny.base()
    trainers = {
        method: Trainer(base, tiny.clips(), settings=replace(tiny.FINE_TUNING, method=method, rate=0.0)).run()
        for method in ("plain", "recycle")
    }
    for _ in range(40):
        for method, steps in trainers.items():
            began = time.process_time()
            next(steps)
            took[method].append(time.process_time() - began)
    plain, recycled = (statistics.median(took[method][5:]) for method in ("plain", "recycle"))
    print(f"a recycling step takes {recycled / plain:.3f} times a plain one ({plain * 1000:.0f} ms); at most 1.15")
    per = {size: replacing(size) for size in (125, 250, 500, 1000)}
    print("nearest: " + ", ".join(f"{size} entries {seconds * 1e6:.0f} µs" for size, seconds in per.items()))
    return (recycled > 1.15 * plain) + (per[1000] > 8 * 1.15 * per[125])


def replacing(capacity: int) -> float:
    """Seconds a full cell of so many entries takes to replace its nearest."""
    shape = (tiny.LATENT[0], tiny.FRAMES, *tiny.LATENT[1:])
    bank = ErrorBank(grid(1)[:-1], shape, capacity=capacity, replacement="nearest")
    bank.add(torch.randn(capacity, *shape), torch.ones(capacity))
    found = []
    for _ in range(15):
        began = time.process_time()
        bank.add(torch.randn(1, *shape), torch.ones(1))
        found.append(time.process_time() - began)
    return statistics.median(found)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f}±{statistics.stdev(values) if len(values) > 1 else 0:.4f}"


if __name__ == "__main__":
    main()
