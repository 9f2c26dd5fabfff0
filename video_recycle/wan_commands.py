"""Wan on a person's own weights and clips: fine-tune it, and let it go on from an image for as long as asked.

python -m video_recycle train --model wan --clips my_clips --out tuned
accelerate launch --num_processes 8 -m video_recycle train --model wan --clips my_clips --out tuned
python -m video_recycle rollout --model wan --adapter tuned/best.safetensors --image start.png --clips 20
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save
from tqdm import tqdm

from video_recycle import clips, wan
from video_recycle.clips import ClipError, Size
from video_recycle.files import write_whole
from video_recycle.recycle import Recycling
from video_recycle.train import BEST, LAST, Method, Settings, Trainer, load_weights, read_weights

DEFAULT = Settings(rate=2e-5)
"""The paper's rate; everything else as the reference implementation has it."""
ADAPTER = "adapter.safetensors"
"""Of the last step, beside the best."""
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: python -m video_recycle train --model wan --clips my_clips --out tuned"
    _shared(parser)
    own, put_in = DEFAULT, DEFAULT.recycling
    parser.add_argument("--clips", type=Path, required=True, help="folder of mp4s, each with its caption in a .txt")
    parser.add_argument("--out", type=Path, default=Path("tuned"), help="folder for checkpoints and adapter [tuned]")
    parser.add_argument("--cache", type=Path, help="folder for the clips' latents [OUT/latents]")
    parser.add_argument("--fresh", action="store_true", help="begin anew where OUT holds a training already")
    parser.add_argument("--method", choices=get_args(Method), default=own.method, help=f"[{own.method}]")
    parser.add_argument("--steps", type=_count, default=own.steps, help=f"[{own.steps}]")
    parser.add_argument("--rank", type=_count, default=128, help="of the adapter [128]")
    parser.add_argument("--rate", type=float, default=own.rate, help=f"[{own.rate:g}]")
    for name, what in (("noise", "noise"), ("video", "clip"), ("image", "frames it goes on from")):
        chance = getattr(put_in, name)
        parser.add_argument(f"--{name}", type=_share, default=chance, help=f"how often into the {what} [{chance}]")
    parser.add_argument("--clean", type=_share, default=put_in.clean, help=f"how often nothing [{put_in.clean}]")
    parser.add_argument("--bank-gib", type=float, default=own.bank_bytes / 2**30, help="cap of the bank's memory [4]")
    parser.add_argument("--pool", type=_count, default=own.pool, help="errors are kept as means of so many pixels² [1]")
    parser.add_argument("--held-out", type=int, default=1, help="clips that only validate [1]")
    parser.add_argument("--save-every", type=_count, default=own.save_every, help=f"steps [{own.save_every}]")


def rollout_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: python -m video_recycle rollout --model wan --adapter tuned/best.safetensors --image start.png "
        "--prompt 'a boat on a lake' --clips 20 --out boat.mp4"
    )
    _shared(parser)
    parser.add_argument("--adapter", type=Path, help="best.safetensors of a training; without, the model as it is")
    parser.add_argument("--image", type=Path, required=True, help="where it starts")
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="given more than once: one clip each, the last for the rest"
    )
    parser.add_argument("--clips", type=_count, default=10, help="[10]")
    parser.add_argument("--sampling", type=_count, default=50, metavar="STEPS", help="per clip [50]")
    parser.add_argument("--out", type=Path, default=Path("rollout.mp4"), help="[rollout.mp4]")


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=Path("wan"), help="folder of weights in diffusers' layout [wan]")
    for name, pixels in (("frames", 81), ("height", 480), ("width", 832)):
        parser.add_argument(f"--{name}", type=int, default=pixels, help=f"of a clip [{pixels}]")
    parser.add_argument("--motion-frames", type=_count, default=1, help="latents that a clip takes over [1]")
    parser.add_argument("--reference", action="store_true", help="show a fixed image beside them")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="of the transformer [bf16]")
    parser.add_argument("--seed", type=int, default=0, help="[0]")


def train(asked: argparse.Namespace) -> int:
    """Raises: ClipError, WanError, TrainingError, BankError."""
    size = _size(asked)
    clips.listed(asked.clips)  # Before gigabytes are loaded.
    with wan.extra():
        from accelerate import Accelerator, DistributedDataParallelKwargs
    # Of Wan 2.2's two transformers a step trains the one that its noise level belongs to.
    machine = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])

    def say(line: str) -> None:
        if machine.is_main_process:
            tqdm.write(line)

    parts = wan.load(asked.model, device=machine.device, dtype=PRECISIONS[asked.precision])
    tell = wan.Teller(parts)
    with machine.main_process_first():
        files = clips.encode_all(
            asked.clips,
            asked.cache or asked.out / "latents",
            size,
            wan.encoder(parts, tell, reference=asked.reference),
            model=f"{asked.model.resolve()}, {'with a' if asked.reference else 'no'} reference",
            tell=say,
        )
    tell.drop()
    held_out = files[: asked.held_out] if len(files) > asked.held_out else []
    settings = replace(
        DEFAULT,
        method=asked.method,
        steps=asked.steps,
        rate=asked.rate,
        motion_frames=asked.motion_frames,
        recycling=Recycling(noise=asked.noise, video=asked.video, image=asked.image, clean=asked.clean),
        bank_bytes=int(asked.bank_gib * 2**30),
        pool=asked.pool,
        save_every=asked.save_every,
        seed=asked.seed,
    )
    trainer = Trainer(
        wan.trainable(parts.model, asked.rank, seed=asked.seed),
        clips.drawing(files[len(held_out) :], wan.batch),
        [wan.batch(clips.read_cached(path)) for path in held_out],
        settings=settings,
        folder=asked.out,
        machine=machine,
    )
    if (asked.out / LAST).exists() and not asked.fresh:
        say(f"goes on from step {trainer.resume()} of {asked.out / LAST}; --fresh begins anew")
    say(f"{len(files) - len(held_out)} clips to train on, {len(held_out)} to validate on")
    if settings.method == "recycle":
        say(str(trainer.open_bank(tuple(clips.read_cached(files[0])["x0"].shape))))
    with tqdm(total=settings.steps, initial=trainer.done, disable=not machine.is_main_process) as bar:
        shown: dict[str, str] = {}
        try:
            for step in trainer.run():
                shown["loss"] = f"{step.loss:.4f}"
                if step.clean is not None:
                    shown["clean"] = f"{step.clean:.4f}"
                bar.set_postfix(shown, refresh=False)
                bar.update()
        except KeyboardInterrupt:
            say(f"stopped after step {trainer.done}; the same command goes on from what was saved last")
            return 130
    if machine.is_main_process:
        data = save(trainer.weights())
        write_whole(asked.out / ADAPTER, lambda file: file.write(data))
        wan.save_for_diffusers(machine.unwrap_model(trainer.model), asked.out / "diffusers")
        best = f"best on the clips held out: {asked.out / BEST}; " if math.isfinite(trainer.best) else ""
        say(f"{best}last step: {asked.out / ADAPTER}, and as diffusers reads it: {asked.out / 'diffusers'}")
    return 0


def rollout(asked: argparse.Namespace) -> int:
    """Raises: ClipError, WanError, TrainingError."""
    size = _size(asked)
    image = clips.read_image(asked.image, size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = wan.load(asked.model, device=device, dtype=PRECISIONS[asked.precision])
    if asked.adapter:
        weights = _adapter(asked.adapter)
        rank = next(value.shape[0] for name, value in weights.items() if ".lora_A." in name)
        load_weights(wan.trainable(parts.model, rank, checkpointing=False), weights, str(asked.adapter))
    parts.model.eval().requires_grad_(False)
    tell = wan.Teller(parts)
    stream = [wan.prompt(tell(caption, image[:, 0])) for caption in asked.prompt or [""]]
    tell.drop()
    prompts = itertools.islice(itertools.chain(stream, itertools.repeat(stream[-1])), asked.clips)
    made = wan.endless(
        parts,
        image,
        prompts,
        frames=asked.frames,
        motion_frames=asked.motion_frames,
        reference=asked.reference,
        steps=asked.sampling,
        seed=asked.seed,
    )
    try:
        count = clips.write_video(asked.out, iter(tqdm(made, "clips", asked.clips)))
    except OSError as error:
        raise ClipError(f"{asked.out} could not be written: {error}") from error
    print(f"{asked.out}: {count} frames")
    return 0


def _size(asked: argparse.Namespace) -> Size:
    size = Size(asked.frames, asked.height, asked.width)
    latents = (size.frames - 1) // 4 + 1
    if asked.motion_frames >= latents:
        raise ClipError(f"{size.frames} frames are {latents} latents: --motion-frames wants to be fewer")
    return size


def _adapter(path: Path) -> dict[str, torch.Tensor]:
    try:
        weights = read_weights(path)
    except FileNotFoundError:
        raise ClipError(f"there is no adapter {path}; a training leaves one: {BEST} or {ADAPTER}") from None
    if not any(".lora_A." in name for name in weights):
        raise ClipError(f"{path} holds no adapter; a training leaves one: {BEST} or {ADAPTER}")
    return weights


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1 is wanted, not {value}")
    return value


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"a share in 0..1 is wanted, not {value:g}")
    return value
