"""The small world's model and data, as the trainer wants them: clips, held-out scenes, base weights, tuned copies."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from video_recycle.files import write_whole
from video_recycle.flow import grid
from video_recycle.lora import add_lora
from video_recycle.measure import FEATURES, Drift, Features, measure, train_features
from video_recycle.model import TinyDiT
from video_recycle.recycle import Recycling
from video_recycle.rollout import rollout
from video_recycle.train import Batch, Draw, Method, Settings, Step, Trainer, load_weights, read_weights
from video_recycle.world import PERIOD, Scenes, decode, encode, render, scenes

NEW, GIVEN = PERIOD, 1
"""Frames of a clip: made, and given to go on from. Every clip is one swing of the disc."""
FRAMES = GIVEN + NEW
SAMPLING = 8
"""Steps."""
LEVELS = grid(SAMPLING)
BATCH = 16
WEIGHTS = Path(__file__).parent / "weights" / "tiny.safetensors"
HELD_OUT = 1_000_000
"""Seeds from here on are never trained on."""

PRETRAINING = Settings(
    method="plain", steps=1200, rate=3e-3, warmup=100, weighting="latent", validate_every=500, save_every=500
)
FINE_TUNING = Settings(
    steps=600,
    rate=1e-3,
    weighting="latent",
    strength=0.06,
    recycling=Recycling(noise=0.0, video=0.0, image=1.0, clean=0.7, clean_update=1.0),
    cells=50,
    capacity=16,
    replacement="fifo",
    validate_every=200,
)
"""The image error alone, as the authors advise for small models, and many clean steps, so that the first clip stays as
good as plain fine-tuning makes it."""
RANK, LORA_RATE = 16, 3e-3
"""An adapter starts at nothing and takes a higher rate than all weights do."""


def clips(batch: int = BATCH) -> Draw:
    """Clips of new scenes, each with the picture its video began with as the reference."""

    def draw(chance: torch.Generator) -> Batch:
        made = scenes(batch, chance)
        x0 = encode(render(made, torch.arange(FRAMES)))
        return Batch(x0=x0, reference=x0[:, :, :1])

    return draw


def held_out(batches: int = 2, batch: int = BATCH) -> list[Batch]:
    """For validation."""
    chance, draw = torch.Generator().manual_seed(HELD_OUT), clips(batch)
    return [draw(chance) for _ in range(batches)]


def base(weights: Path = WEIGHTS) -> TinyDiT:
    """The pretrained model. Raises: FileNotFoundError, TrainingError."""
    model = TinyDiT(frames=FRAMES)
    load_weights(model, read_weights(weights), str(weights))
    return model


def pretrain(folder: Path, *, settings: Settings = PRETRAINING) -> Iterator[Step]:
    """Train a base model from nothing, its best weights to be in `folder`; goes on from there where it was left."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = TinyDiT(frames=FRAMES)
    trainer = Trainer(model, clips(), held_out(), settings=settings, folder=folder)
    with contextlib.suppress(FileNotFoundError):
        trainer.resume()
    yield from trainer.run()


def fine_tuned(
    start: TinyDiT,
    method: Method,
    *,
    lora: bool,
    settings: Settings = FINE_TUNING,
    on_step: Callable[[Step], None] = lambda step: None,
) -> TinyDiT:
    """A copy of `start` after the steps of `settings` by `method`, with an adapter of rank `RANK` or all weights."""
    model = copy.deepcopy(start).train()
    if lora:
        add_lora(model, RANK, seed=settings.seed)
        settings = replace(settings, rate=LORA_RATE)
    trainer = Trainer(model, clips(), held_out(), settings=replace(settings, method=method))
    for step in trainer.run():
        on_step(step)
    return model.eval()


def starts(count: int, seed: int = 0) -> Scenes:
    """Held-out scenes to roll out from."""
    return scenes(count, torch.Generator().manual_seed(HELD_OUT + 1 + seed))


def play(model: TinyDiT, world: Scenes, clips: int, *, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Per clip its new frames, pixels `[B, 3, NEW, 12, 12]`, and their times `[NEW]`; from one image of each scene."""
    image = encode(render(world, torch.zeros(1)))
    made = rollout(
        model.eval(),
        image,
        itertools.repeat(None, clips),
        frames=FRAMES,
        sigmas=LEVELS,
        seed=seed,
        reference=image,
    )
    for clip, latents in enumerate(made):
        yield decode(latents), GIVEN + clip * NEW + torch.arange(NEW)


def copied(world: Scenes, clips: int) -> Iterator[tuple[Tensor, Tensor]]:
    """What copying the given frame for ever looks like, told as `play` does."""
    image = render(world, torch.zeros(1))
    for clip in range(clips):
        yield image.expand(-1, -1, NEW, -1, -1), GIVEN + clip * NEW + torch.arange(NEW)


@cache
def features() -> Features:
    """The network of the Fréchet distance, with its shipped weights. Raises: FileNotFoundError, TrainingError."""
    made = Features()
    load_weights(made, read_weights(FEATURES), str(FEATURES))
    return made.requires_grad_(False).eval()


def save_features() -> None:
    """Train the network of the Fréchet distance again, and put its weights where `features` looks."""
    data = save({name: value.contiguous() for name, value in train_features().state_dict().items()})
    write_whole(FEATURES, lambda file: file.write(data))


def drift(played: Iterator[tuple[Tensor, Tensor]], world: Scenes) -> list[Drift]:
    """One `Drift` per clip."""
    return [measure(pixels, world, times, features()) for pixels, times in played]
