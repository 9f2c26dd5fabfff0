"""A person's clips: read through PyAV, encoded once, and kept on disk as latents with what else the model is told.

A clip is `name.mp4` with its caption in `name.txt` beside it. What cannot be used is told by name and left out; one bad
file does not end the work on a thousand.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from video_recycle.files import write_whole
from video_recycle.train import Batch, Draw

ENDINGS = (".mp4", ".mov", ".mkv", ".webm")


class ClipError(ValueError):
    """A clip, or a folder of them, that cannot be used. The message names it and says why."""


@dataclass(frozen=True)
class Size:
    """Of every clip in pixels: frames are 4n + 1, height and width multiples of 16, as Wan's VAE and patches want them.

    Raises: ClipError.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.frames < 5 or self.frames % 4 != 1:
            raise ClipError(f"a clip has 4n + 1 frames and at least 5, such as 81; not {self.frames}")
        if self.height < 16 or self.width < 16 or self.height % 16 or self.width % 16:
            raise ClipError(
                f"height and width are multiples of 16, such as 480 and 832; not {self.height}, {self.width}"
            )


def read_clip(path: Path, size: Size, fps: float = 16.0) -> Tensor:
    """The first frames of a video at `fps`, scaled and cropped about the middle: `[3, T, H, W]` in -1..1.

    Raises: ClipError, where it is no video, is damaged, or too short.
    """
    import av

    frames: list[Tensor] = []
    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise ClipError(f"{path.name} has no video in it")
            due, shown = 0.0, -1.0
            for frame in video.decode(video=0):
                shown = frame.time if frame.time is not None else shown + 1 / fps
                while shown >= due - 1e-6 and len(frames) < size.frames:
                    frames.append(_fitted(torch.from_numpy(frame.to_ndarray(format="rgb24")), size))
                    due += 1 / fps
                if len(frames) == size.frames:
                    break
    except (av.error.FFmpegError, OSError) as error:
        raise ClipError(f"{path.name} cannot be read as a video: {error}") from None
    if len(frames) < size.frames:
        raise ClipError(f"{path.name} is too short: {len(frames)} of {size.frames} frames at {fps:g} a second")
    return torch.stack(frames, 1)


def read_image(path: Path, size: Size) -> Tensor:
    """`[3, 1, H, W]` in -1..1. Raises: ClipError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            raw = image.convert("RGB")
    except OSError as error:
        raise ClipError(f"{path} cannot be read as an image: {error}") from None
    pixels = torch.frombuffer(bytearray(raw.tobytes()), dtype=torch.uint8).reshape(raw.height, raw.width, 3)
    return _fitted(pixels, size)[:, None]


def write_video(path: Path, frames: Iterator[Tensor], fps: int = 16) -> int:
    """Encode frames `[3, T, H, W]` in -1..1, as they come, to `path`; returns how many. Raises: OSError."""
    import av

    part, count = path.with_name(f".{path.name}.part{path.suffix}"), 0
    try:
        with av.open(str(part), "w") as video:
            stream = None
            for pixels in frames:
                bytes_ = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu()
                for picture in bytes_:
                    if stream is None:
                        stream = video.add_stream("libx264", rate=fps, options={"crf": "16"})
                        stream.height, stream.width, stream.pix_fmt = picture.shape[0], picture.shape[1], "yuv420p"
                    made = av.VideoFrame.from_ndarray(picture.contiguous().numpy(), format="rgb24")
                    video.mux(stream.encode(made))
                    count += 1
            if stream is not None:
                video.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def listed(folder: Path) -> list[Path]:
    """The clips of a folder. Raises: ClipError, where there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if not found:
        raise ClipError(f"there are no clips ({', '.join(ENDINGS)}) in {folder}")
    return found


def encode_all(
    folder: Path,
    cache: Path,
    size: Size,
    encode: Callable[[Tensor, str], dict[str, Tensor]],
    *,
    model: str,
    tell: Callable[[str], None],
) -> list[Path]:
    """Encode every clip of `folder` that is not in `cache` yet; returns the files of all that can be used.

    encode: pixels `[3, T, H, W]` and a caption to tensors, among them `x0`, `[C, T', H', W']`; model: whose latents
    they are, told apart in the cache. Raises: ClipError, where nothing can be used.
    """
    found = listed(folder)
    cache.mkdir(parents=True, exist_ok=True)
    ready: list[Path] = []
    for at, path in enumerate(found, 1):
        caption_file = path.with_suffix(".txt")
        caption = caption_file.read_text(encoding="utf-8", errors="replace").strip() if caption_file.is_file() else ""
        facts = (path.name, path.stat().st_size, path.stat().st_mtime_ns, caption, vars(size), model)
        kept = cache / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.safetensors"
        if not kept.is_file():
            try:
                made = encode(read_clip(path, size), caption)
            except ClipError as error:
                tell(f"left out: {error}")
                continue
            if not all(value.isfinite().all() for value in made.values()):
                tell(f"left out: {path.name} has latents that are not finite")
                continue
            data = save({name: value.cpu().contiguous() for name, value in made.items()}, metadata={"model": model})
            try:
                write_whole(kept, methodcaller("write", data))
            except OSError as error:
                raise ClipError(f"the latents of {path.name} could not be kept in {cache}: {error}") from error
            tell(f"encoded {at} of {len(found)}: {path.name}")
        ready.append(kept)
    if not ready:
        raise ClipError(f"none of the {len(found)} clips in {folder} can be used")
    return ready


def drawing(files: Sequence[Path], make: Callable[[dict[str, Tensor]], Batch]) -> Draw:
    """Draws one cached clip at a time. Raises: ClipError, when it draws a damaged file."""

    def draw(chance: torch.Generator) -> Batch:
        return make(read_cached(files[int(torch.randint(len(files), (), generator=chance))]))

    return draw


def read_cached(path: Path) -> dict[str, Tensor]:
    """The tensors of one clip. Raises: ClipError."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ClipError(f"the cached {path.name} is damaged ({error}): delete it, and it is made again") from None


def _fitted(pixels: Tensor, size: Size) -> Tensor:
    """`[h, w, 3]` bytes to `[3, H, W]`."""
    height, width = pixels.shape[:2]
    scale = max(size.height / height, size.width / width)
    grown = (max(size.height, math.ceil(height * scale)), max(size.width, math.ceil(width * scale)))
    image = pixels.permute(2, 0, 1).float()[None] / 127.5 - 1
    image = F.interpolate(image, grown, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = (grown[0] - size.height) // 2, (grown[1] - size.width) // 2
    return image[:, top : top + size.height, left : left + size.width]
