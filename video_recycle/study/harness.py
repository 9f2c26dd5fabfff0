"""What every experiment of this study stands on, and none may change: the clock, and the drift score. Frozen.

A trial is told what to do by its environment:

    LABTOP_BUDGET    seconds of training, of this process's CPU time; 20, where unset
    LABTOP_SEED      of the fine-tuning's chance
    LABTOP_HANDOVER  a folder to leave the weights in, which study.audit measures; without, they are measured here
    LABTOP_CACHE     where the number is kept that the held-out starts are drawn with

It trains on the CPU, whatever else there is: the model is small.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from video_recycle import tiny
from video_recycle.model import TinyDiT
from video_recycle.train import load_weights

BUDGET = float(os.environ.get("LABTOP_BUDGET") or 20)
SEED = int(os.environ.get("LABTOP_SEED") or 1337)
HANDED_OVER = "weights.safetensors"
METRIC = "drift"
CLIPS, SCENES = 50, 16
"""Rolled out, and the held-out starts."""
LATE = 20
"""Clips at the end that the score is a mean over."""
UNCHARGED = 2
"""Steps at the start in which allocators and caches settle."""

# On a machine that others use too, two threads wait for each other.
torch.set_num_threads(1)


class Clock:
    """The budget. `while clock.step():` trains until it is used up.

    It counts CPU time, which others on the machine cannot take, and which stands still while the trial is paused.
    """

    def __init__(self, budget: float = BUDGET) -> None:
        self.budget = budget
        self.steps = 0
        """Steps begun."""
        self.charged = self.pace = 0.0
        """Seconds: of the steps that count, and of the last one."""
        self._mark = 0.0

    @property
    def progress(self) -> float:
        """How much of the budget is used, in 0..1."""
        return min(1.0, self.charged / self.budget)

    def step(self) -> bool:
        """End the step before and begin another one; False when the budget is used up."""
        now = time.process_time()
        if self.steps:
            self.pace = now - self._mark
            self.charged += self.pace if self.steps > UNCHARGED else 0.0
        if self.charged >= self.budget:
            return False
        self.steps, self._mark = self.steps + 1, now
        return True


def finish(model: nn.Module, clock: Clock, summary: dict[str, float]) -> None:
    """End a run: hand the weights over, or measure them where nobody asks for them; and print.

    Raises: SystemExit with one sentence where they are not finite.
    """
    weights = whole(model)
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        sys.exit(f"\nthe trained weights are not finite: {broken[0]}")
    measured = {}
    if folder := os.environ.get("LABTOP_HANDOVER"):
        save_file(weights, Path(folder) / HANDED_OVER)
    else:
        made = tiny.base()
        load_weights(made, weights, "the trained model")
        measured = score(made)
    print("\n---")
    show({**measured, **summary, "training_seconds": clock.charged, "num_steps": clock.steps, "peak_vram_mb": memory()})


def whole(model: nn.Module) -> dict[str, Tensor]:
    """The weights by the names that `TinyDiT` has for them; an adapter, where there is one, is added in."""
    parts: list[Any] = list(model.modules())
    for part in parts:
        # A layer of peft, which takes seconds to import, and is not where no adapter is.
        if hasattr(part, "base_layer"):
            part.merge()
    return {
        name.replace(".base_layer.", "."): value.detach().contiguous()
        for name, value in model.named_parameters()
        if ".lora_" not in name
    }


def score(model: TinyDiT) -> dict[str, float]:
    """`drift`, lower is better, and what it is made of: means over a long rollout's last clips, from held-out starts.

        drift = look + (1 - found) / 4 + |1 - motion|

    Looks alone are won by a frozen picture; that has no motion, and gets 1. See `measure.Drift` for the terms.
    """
    world = tiny.starts(SCENES, held_out())
    clips = [asdict(clip) for clip in tiny.drift(tiny.play(model, world, CLIPS), world)]
    late = {name: fmean(clip[name] for clip in clips[-LATE:]) for name in ("look", "found", "motion")}
    drift = late["look"] + (1 - late["found"]) / 4 + abs(1 - late["motion"])
    return {METRIC: drift, **late, "look_at_clip_1": clips[0]["look"]}


def held_out() -> int:
    """The number that the starts are drawn with, the same for all studies on this machine; trials cannot read it."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    file = Path(os.environ.get("LABTOP_CACHE") or Path(caches) / "labtop") / "locked" / "drift-starts"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(str(secrets.randbelow(2**31)))
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
        draft.unlink()
    return int(file.read_text())


def memory() -> float:
    """Peak of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def show(numbers: dict[str, float]) -> None:
    """As the loop reads them."""
    for name, value in numbers.items():
        print(f"{name + ':':<22}{value:.6f}" if isinstance(value, float) else f"{name + ':':<22}{value}")
