"""All of it in minutes: fine-tune the small model every way from the same weights, let all go on for 50 clips, look.

python -m video_recycle demo
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from video_recycle import charts, tiny
from video_recycle.measure import NAMES, Drift
from video_recycle.model import TinyDiT
from video_recycle.train import BEST, Method, Settings
from video_recycle.world import render

WAYS: dict[str, tuple[Method, bool]] = {
    "plain, LoRA": ("plain", True),
    "hand-made noise, LoRA": ("noise", True),
    "recycled, LoRA": ("recycle", True),
    "plain, all weights": ("plain", False),
    "hand-made noise, all": ("noise", False),
    "recycled, all weights": ("recycle", False),
}
"""How each is fine-tuned: the method, and whether by an adapter."""
SHEET_CLIPS = (1, 5, 10, 20, 30, 40, 50)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pretrain", action="store_true", help="make the base weights again first (a minute)")
    parser.add_argument("--seed", type=int, default=0, help="of fine-tuning and of what is rolled out [0]")
    parser.add_argument("--steps", type=int, default=tiny.FINE_TUNING.steps, help=f"[{tiny.FINE_TUNING.steps}]")
    parser.add_argument("--clips", type=int, default=50, help="to roll out [50]")
    parser.add_argument("--scenes", type=int, default=16, help="held-out scenes to start from [16]")
    parser.add_argument("--out", type=Path, default=Path("video_demo"), help="folder for the pictures [video_demo]")


def main(asked: argparse.Namespace) -> int:
    # So small a model gains little by more threads, and loses much where the cores are shared.
    torch.set_num_threads(1)
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    if asked.pretrain:
        pretrain(out)
    world = tiny.starts(asked.scenes, asked.seed)
    settings = replace(tiny.FINE_TUNING, steps=asked.steps, seed=asked.seed)
    copied = tiny.drift(tiny.copied(world, asked.clips), world)
    drifts: dict[str, list[Drift]] = {}
    frames: dict[str, list[Tensor]] = {}
    for name, model in models(settings):
        shown = tqdm(
            tiny.play(model, world, asked.clips, seed=asked.seed), f"roll out {name}", asked.clips, leave=False
        )
        played = list(shown)
        drifts[name] = tiny.drift(iter(played), world)
        frames[name] = [played[clip - 1][0][0, :, -1] for clip in SHEET_CLIPS if clip <= asked.clips]
        times = [played[clip - 1][1][-1:] for clip in SHEET_CLIPS if clip <= asked.clips]
    truth = [render(world[:1], time)[0, :, 0] for time in times]
    columns = [f"clip {clip}" for clip in SHEET_CLIPS if clip <= asked.clips]
    charts.sheet({"truth": truth, **frames}, columns, out / "drift-frames.png")
    for field, title in (
        ("error", "error against the truth, pixel range 2"),
        ("frechet", "Fréchet distance"),
    ):
        curves = {name: [getattr(clip, field) for clip in clips] for name, clips in drifts.items()}
        charts.png(curves, title, out / f"drift-{field}.png")
        if field == "error":
            width = min(120, shutil.get_terminal_size((100, 24)).columns)
            print(charts.terminal(curves, title, width=width))
    print(table({"copy the last frame": copied, **drifts}, [clip for clip in (1, 10, 50) if clip <= asked.clips]))
    print(f"\npictures: {out / 'drift-error.png'}, {out / 'drift-frechet.png'}, {out / 'drift-frames.png'}")
    return 0


def models(settings: Settings) -> Iterator[tuple[str, TinyDiT]]:
    """The base, and a fine-tuned copy for each of `WAYS`, one at a time."""
    base = tiny.base()
    yield "base", base.eval()
    for name, (method, lora) in WAYS.items():
        with tqdm(total=settings.steps, desc=f"fine-tune {name}", leave=False) as bar:
            model = tiny.fine_tuned(base, method, lora=lora, settings=settings, on_step=lambda _: bar.update())
        yield name, model


def pretrain(out: Path) -> None:
    """Make the shipped weights again; an interrupted one goes on where it was."""
    folder = out / "pretraining"
    steps = tiny.pretrain(folder)
    with tqdm(total=tiny.PRETRAINING.steps, desc="pretrain") as bar:
        for step in steps:
            bar.update(step.number - bar.n)
            if step.clean is not None:
                bar.set_postfix(clean=f"{step.clean:.5f}")
    tiny.WEIGHTS.parent.mkdir(exist_ok=True)
    tiny.save_features()
    shutil.copyfile(folder / BEST, tiny.WEIGHTS)


def table(drifts: dict[str, list[Drift]], clips: list[int]) -> str:
    """One row per model and clip, one column per measure."""
    head = f"{'':<24}{'clip':>5}" + "".join(f"{name:>11}" for name in NAMES)
    rows = [
        f"{name if clip == clips[0] else '':<24}{clip:>5}"
        + "".join(f"{getattr(found[clip - 1], field):>11.3f}" for field in NAMES)
        for (name, found), clip in itertools.product(drifts.items(), clips)
    ]
    return "\n".join([head, *rows])
