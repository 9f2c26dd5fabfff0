"""What the trainer reaches at its budget: val_bpb over several seeds, tokens per second, and wall time.

    python benchmarks/trainer.py --seeds 5 --check
    python benchmarks/trainer.py --peer other/train.py

A peer is any script that trains on the text and clock of trainer.prepare and prints `val_bpb: …`; it runs beside ours,
seed by seed in turns, so that a noisy machine disturbs both alike. `--check` exits 1 where an aim for a CPU at the
default budget is missed: at most 1.58 bpb (mean) and 35 s of wall time (median).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ROOT / "trainer" / "train.py"
BPB_LIMIT, WALL_LIMIT = 1.58, 35.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python benchmarks/trainer.py --seeds 5 --check"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="[5]")
    parser.add_argument("--budget", type=float, metavar="S", help="seconds of training [the profile's]")
    parser.add_argument("--peer", type=Path, metavar="PATH", help="another script, trained beside ours")
    parser.add_argument("--check", action="store_true", help="exit 1 where an aim is missed")
    asked = parser.parse_args()
    if asked.seeds < 1:
        parser.error("at least one seed is wanted")
    if asked.peer and not asked.peer.is_file():
        parser.error(f"there is no file {asked.peer}")
    subprocess.run([sys.executable, "-m", "trainer.prepare"], cwd=ROOT, check=True)
    scripts = {"ours": OURS, **({"peer": asked.peer.resolve()} if asked.peer else {})}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in scripts}
    print(f"{'script':<8}{'seed':>5}{'val_bpb':>10}{'tok/s':>10}{'steps':>8}{'wall s':>8}", flush=True)
    for seed in range(1, asked.seeds + 1):
        for name, script in scripts.items():
            run = train(script, seed, asked.budget)
            runs[name].append(run)
            print(
                f"{name:<8}{seed:>5}{run['val_bpb']:>10.4f}{run.get('tokens_per_second', 0):>10,.0f}"
                f"{run.get('num_steps', 0):>8.0f}{run['wall']:>8.1f}",
                flush=True,
            )
    print()
    for name, found in runs.items():
        values = [run["val_bpb"] for run in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        speed = statistics.median(run.get("tokens_per_second", 0.0) for run in found)
        wall = statistics.median(run["wall"] for run in found)
        print(
            f"{name:<8}val_bpb mean {statistics.mean(values):.4f}, standard deviation {spread:.4f} over {len(values)} "
            f"seeds; median {speed:,.0f} tokens/s, {wall:.1f} s of wall time"
        )
    print(f"on {device()}")
    if asked.check:
        check(runs["ours"])


def train(script: Path, seed: int, budget: float | None) -> dict[str, float]:
    """Every number of the script's summary, and `wall`, the seconds it took in all."""
    env = {**os.environ, "LABTOP_SEED": str(seed), "PYTHONPATH": str(ROOT)}
    if budget is not None:
        env["LABTOP_BUDGET"] = str(budget)
    begun = time.monotonic()
    done = subprocess.run([sys.executable, str(script)], env=env, cwd=ROOT, capture_output=True, text=True)
    wall = time.monotonic() - begun
    if done.returncode != 0:
        sys.exit(f"{script} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    summary = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(":")
        try:
            summary[name.strip()] = float(value)
        except ValueError:
            continue
    if "val_bpb" not in summary:
        sys.exit(f"{script} printed no val_bpb")
    return {**summary, "wall": wall}


def device() -> str:
    """What it ran on, in words."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    gpu = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    if gpu:
        return gpu
    try:
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        models = []
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{os.cpu_count()} cores of {name}, one of them used"


def check(runs: list[dict[str, float]]) -> None:
    bpb = statistics.mean(run["val_bpb"] for run in runs)
    wall = statistics.median(run["wall"] for run in runs)
    missed = [f"{bpb:.4f} bpb is over {BPB_LIMIT}"] if bpb > BPB_LIMIT else []
    if wall > WALL_LIMIT:
        missed.append(f"{wall:.1f} s is over {WALL_LIMIT:g} s")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
