"""Fine-tune the small world's model by error recycling until the budget is used up. The agent edits this file.

Each step puts errors that the model made into a clip, aims at the clean clip, and records what it gets wrong now; how,
stands in video_recycle/recycle.py, which is the agent's as well. What counts is the drift of 50 clips that the model
then makes, each from the one before; study/harness.py measures it on scenes that are never seen here.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import nn

from video_recycle import tiny
from video_recycle.bank import ErrorBank
from video_recycle.condition import condition
from video_recycle.flow import grid, like, shifted
from video_recycle.lora import add_lora
from video_recycle.recycle import Recycling, inject, record
from video_recycle.study.harness import SEED, Clock, finish
from video_recycle.train import weight
from video_recycle.world import LATENT

# How often each error is put in, and how often none is; with all three at 0 it is plain fine-tuning.
IMAGE = 1.0  # 0.0..1.0 — into the frames that a clip goes on from
VIDEO = 0.0  # 0.0..1.0 — into the clip
NOISE = 0.0  # 0.0..1.0 — into its noise
CLEAN = 0.7  # 0.0..0.9 — none of them
CLEAN_UPDATE = 1.0  # 0.0..1.0 — how often the error of a clean step is recorded

# Optimisation.
RATE = 1e-3  # 0.0001..0.01 (log) — AdamW's, at its peak
BATCH = 16  # one of: 8, 16, 32, 64 — clips a step
WARMUP = 0.1  # 0.0..0.5 — share of the budget in which the rate rises; then it falls to nothing
DECAY = 0.01  # 0.0001..0.3 (log) — of the weights
RANK = 0  # one of: 0, 4, 16, 64 — of an adapter; 0: all weights are trained
SHIFT = 5.0  # 1.0..12.0 (log) — of the noise levels: more is noisier
WEIGHTING = "latent"  # one of: "latent", "bell" — of the loss over noise levels

# The bank.
CELLS = 50  # 1..100 — of noise levels
CAPACITY = 16  # 1..512 (log) — errors in each
REPLACEMENT = "fifo"  # one of: "random", "fifo", "nearest"
MODULATION = 0.0  # 0.0..0.8 — errors are scaled by 1 ± this


def main() -> None:
    torch.manual_seed(SEED)
    chance = torch.Generator().manual_seed(SEED)
    draw, model = tiny.clips(BATCH), tiny.base().train()
    if RANK:
        add_lora(model, RANK, seed=SEED)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY, betas=(0.9, 0.99))
    recycling = Recycling(noise=NOISE, video=VIDEO, image=IMAGE, clean=CLEAN, clean_update=CLEAN_UPDATE)
    bank = ErrorBank(
        grid(CELLS, SHIFT)[:-1],
        (LATENT[0], tiny.FRAMES, *LATENT[1:]),
        capacity=CAPACITY,
        replacement=REPLACEMENT,
        modulation=MODULATION,
        seed=SEED,
    )
    print(f"{sum(value.numel() for value in trained)} weights are trained; {bank}")

    clock, smooth = Clock(), 0.0
    while clock.step():
        batch = draw(chance)
        noise = torch.randn(batch.x0.shape, generator=chance)
        sigma = shifted(torch.rand(BATCH, generator=chance), SHIFT)
        given, mask = condition(batch.x0[:, :, : tiny.GIVEN], tiny.FRAMES, reference=batch.reference)
        inputs = inject(bank, batch.x0, noise, sigma, given, settings=recycling, chance=chance)
        predicted = model(inputs.x, sigma, inputs.condition, mask)
        square = (predicted - inputs.target).square()
        loss = (square * like(weight(sigma, WEIGHTING), square)).mean()
        record(bank, predicted, inputs, sigma, settings=recycling, chance=chance)
        if not loss.isfinite():
            sys.exit(f"\nstopped at step {clock.steps}: the loss is {loss:.3f}")
        optimizer.param_groups[0]["lr"] = RATE * schedule(clock.progress)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if clock.steps == 1 else 0.95 * smooth + 0.05 * loss.item()
        print(
            f"\rstep {clock.steps:05d} ({100 * clock.progress:.1f}%) | loss: {smooth:.6f} | "
            f"dt: {1000 * clock.pace:.0f}ms | held: {len(bank)}    ",
            end="",
            flush=True,
        )
    finish(model, clock, {"bank_entries": len(bank)})


def schedule(progress: float) -> float:
    """The rate's factor when `progress` of the budget is used: up, then half a cosine down."""
    return min(1.0, progress / WARMUP if WARMUP else 1.0) * 0.5 * (1 + math.cos(math.pi * progress))


if __name__ == "__main__":
    main()
