"""Wan 2.1 and 2.2 image-to-video (A14B) through diffusers, behind the same trainer, bank and rollout as the small one.

Latents are normalised as the model was trained on them; the flow's arithmetic and the grid of noise levels are ours,
since diffusers' scheduler shifts its last levels twice. Wan 2.2 has two transformers: the one for σ at or above its
boundary, and the one for below.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from video_recycle.clips import ClipError
from video_recycle.flow import SHIFT, grid
from video_recycle.lora import NAME, add_lora
from video_recycle.rollout import rollout
from video_recycle.train import Batch

REPOSITORY = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
TIMESTEPS = 1000
TEXT_TOKENS = 512
BOUNDARY = 0.9
"""σ below which Wan 2.2's image-to-video model uses its second transformer, where its folder names no other."""


class WanError(RuntimeError):
    """Wan cannot be used here. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """text: embedded caption `[B, 512, D]`; image: CLIP's tokens of the image `[B, 257, D']`, which Wan 2.1 wants."""

    text: Tensor
    image: Tensor | None = None


class Wan(nn.Module):
    """The transformer as a `rollout.VideoModel`; `low` is Wan 2.2's second one."""

    def __init__(self, transformer: nn.Module, low: nn.Module | None = None, boundary: float = BOUNDARY) -> None:
        super().__init__()
        self.transformer, self.low, self.boundary = transformer, low, boundary

    def forward(self, x: Tensor, sigma: Tensor, given: Tensor, mask: Tensor, prompt: object = None) -> Tensor:
        """The velocity, `[B, C, T, H, W]` as x. The mask has one channel here, and four alike in Wan's input."""
        if not isinstance(prompt, Prompt):
            raise WanError("Wan wants a Prompt: the embedded caption, and for Wan 2.1 the image's tokens")
        expert = self.low if self.low is not None and float(sigma.max()) < self.boundary else self.transformer
        # Tables, norms and the adapter stay in single precision, whatever the rest is in.
        embedding: Any = expert.get_submodule("patch_embedding")
        dtype = embedding.weight.dtype
        seen = torch.cat([x, mask.expand(-1, 4, -1, -1, -1), given], 1)
        made: Tensor = expert(
            hidden_states=seen.to(dtype),
            timestep=sigma.to(x.device) * TIMESTEPS,
            encoder_hidden_states=prompt.text.to(x.device, dtype),
            encoder_hidden_states_image=None if prompt.image is None else prompt.image.to(x.device, dtype),
            return_dict=False,
        )[0]
        return made.to(x)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a folder of Wan weights holds. read: loads one of its other parts, by name, when it is needed."""

    model: Wan
    vae: Any
    read: Callable[[str], Any]
    wants_image: bool


def load(folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16) -> Parts:
    """The transformers and the VAE of a folder in diffusers' layout. Raises: WanError."""
    how = f"get them with: hf download {REPOSITORY} --local-dir {folder}"
    if not (folder / "transformer" / "config.json").is_file() or not (folder / "vae" / "config.json").is_file():
        raise WanError(f"there are no Wan image-to-video weights in {folder}; {how}")
    with extra():
        import diffusers
        import transformers

    def whole(name: str, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(folder / name, local_files_only=True, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise WanError(f"the weights in {folder / name} are not whole ({error}); {how}") from error

    def part(name: str, kind: Any, precision: torch.dtype) -> Any:
        return whole(name, kind, torch_dtype=precision).to(device).eval().requires_grad_(False)

    def read(name: str) -> Any:
        kinds = {"text_encoder": transformers.UMT5EncoderModel, "image_encoder": transformers.CLIPVisionModel}
        plain = {"tokenizer": transformers.AutoTokenizer, "image_processor": transformers.CLIPImageProcessor}
        return part(name, kinds[name], dtype) if name in kinds else whole(name, plain[name])

    high = part("transformer", diffusers.WanTransformer3DModel, dtype)
    low = (
        part("transformer_2", diffusers.WanTransformer3DModel, dtype)
        if (folder / "transformer_2" / "config.json").is_file()
        else None
    )
    channels, latent = high.config.in_channels, high.config.out_channels
    if channels != 2 * latent + 4:
        raise WanError(f"{folder} is no Wan image-to-video model: it sees {channels} channels, not {2 * latent + 4}")
    index = folder / "model_index.json"
    boundary = json.loads(index.read_text()).get("boundary_ratio") if index.is_file() else None
    # The VAE loses too much in half precision.
    vae = part("vae", diffusers.AutoencoderKLWan, torch.float32)
    return Parts(
        model=Wan(high, low, boundary or BOUNDARY), vae=vae, read=read, wants_image=high.config.image_dim is not None
    )


def trainable(model: Wan, rank: int, *, checkpointing: bool = True, seed: int = 0) -> Wan:
    """`model` with an adapter of this rank in every transformer, and nothing else to train; its factors in float32."""
    parts: list[Any] = [part for part in (model.transformer, model.low) if part is not None]
    for part in parts:
        add_lora(part, rank, seed=seed)
        if checkpointing:
            part.enable_gradient_checkpointing()
        for value in part.parameters():
            if value.requires_grad:
                value.data = value.data.float()
    return model


def encode(vae: Any, pixels: Tensor) -> Tensor:
    """Normalised latents `[C, (T - 1)/4 + 1, H/8, W/8]` of `pixels` `[3, T, H, W]` in -1..1."""
    mean, std = _norm(vae)
    with torch.no_grad():
        latents: Tensor = vae.encode(pixels[None].to(vae.device, vae.dtype)).latent_dist.mode()[0].float()
    return (latents - mean) / std


def decode(vae: Any, latents: Tensor) -> Tensor:
    """The way back, from `[C, T, h, w]`."""
    mean, std = _norm(vae)
    with torch.no_grad():
        pixels: Tensor = vae.decode((latents.float() * std + mean)[None].to(vae.dtype)).sample[0].float()
    return pixels.clamp(-1, 1)


def gray(vae: Any, frames: int, height: int, width: int) -> Tensor:
    """Latents `[C, T, h, w]` of nothing, which Wan was trained to see where no frame is given."""
    return encode(vae, torch.zeros(3, frames, height, width))


class Teller:
    """Embeds captions and images; loads what that takes at first use, `drop` lets it go."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self._held = parts, dict[str, Any]()

    def __call__(self, caption: str, image: Tensor) -> dict[str, Tensor]:
        """`text` `[512, D]` and, where the model wants it, `image` `[257, D']`, for an image `[3, H, W]` in -1..1."""
        with torch.no_grad():
            told = {"text": self._text(caption)}
            if self.parts.wants_image:
                told["image"] = self._image(image)
        return told

    def drop(self) -> None:
        self._held.clear()

    def _part(self, name: str) -> Any:
        if name not in self._held:
            self._held[name] = self.parts.read(name)
        return self._held[name]

    def _text(self, caption: str) -> Tensor:
        encoder = self._part("text_encoder")
        words = self._part("tokenizer")(
            [caption], padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
        ).to(encoder.device)
        states: Tensor = encoder(words.input_ids, words.attention_mask).last_hidden_state[0].float()
        # Wan sees zeros after the last word.
        told: Tensor = states * words.attention_mask[0, :, None]
        return told

    def _image(self, image: Tensor) -> Tensor:
        encoder: Any = self._part("image_encoder")
        seen: Any = self._part("image_processor")(images=[(image + 1) / 2], do_rescale=False, return_tensors="pt")
        states = encoder(seen.pixel_values.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states
        tokens: Tensor = states[-2][0].float()
        return tokens


def encoder(parts: Parts, tell: Teller, *, reference: bool) -> Callable[[Tensor, str], dict[str, Tensor]]:
    """What `clips.encode_all` calls: a clip's latents, its padding, and its prompt.

    reference: whether the clip's last frame is shown as one; else the padding is gray.
    """

    def make(pixels: Tensor, caption: str) -> dict[str, Tensor]:
        padding = encode(parts.vae, pixels[:, -1:]) if reference else gray(parts.vae, *pixels.shape[1:])
        return {"x0": encode(parts.vae, pixels), "padding": padding, **tell(caption, pixels[:, 0])}

    return make


def prompt(told: dict[str, Tensor]) -> Prompt:
    """What a `Teller` told, for a batch of one."""
    return Prompt(text=told["text"][None], image=told["image"][None] if "image" in told else None)


def batch(kept: dict[str, Tensor]) -> Batch:
    """One cached clip for the trainer. Raises: ClipError."""
    try:
        return Batch(x0=kept["x0"][None], reference=kept["padding"][None], prompt=prompt(kept))
    except KeyError as error:
        raise ClipError(f"a cached clip lacks its {error}: empty the cache, and it is made again") from None


def endless(
    parts: Parts,
    image: Tensor,
    prompts: Iterable[Prompt],
    *,
    frames: int,
    motion_frames: int = 1,
    reference: bool = False,
    steps: int = 50,
    seed: int = 0,
    shift: float = SHIFT,
) -> Iterator[Tensor]:
    """Pixels `[3, T, H, W]` of clip after clip from one image `[3, 1, H, W]`: `frames` pixel frames at a time.

    Each clip's first new latent is decoded behind the ones handed over, which the causal VAE needs before it, and what
    these decode to is cut off.
    """
    height, width = image.shape[2:]
    start = encode(parts.vae, image.expand(-1, 4 * (motion_frames - 1) + 1, -1, -1))
    padding = encode(parts.vae, image) if reference else gray(parts.vae, frames, height, width)
    made = rollout(
        parts.model,
        start[None],
        prompts,
        frames=(frames - 1) // 4 + 1,
        sigmas=grid(steps, shift),
        seed=seed,
        reference=padding[None],
    )
    before, first = start, True
    for latents in made:
        pixels = decode(parts.vae, torch.cat([before, latents[0]], 1))
        yield pixels if first else pixels[:, 4 * (before.shape[1] - 1) + 1 :]
        before, first = torch.cat([before, latents[0]], 1)[:, -motion_frames:], False


def save_for_diffusers(model: Wan, folder: Path) -> None:
    """The adapter as diffusers' `load_lora_adapter` reads it: `pytorch_lora_weights.safetensors`."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    from video_recycle.files import write_whole

    for part, name in ((model.transformer, "transformer"), (model.low, "transformer_2")):
        if part is not None:
            weights = get_peft_model_state_dict(part, adapter_name=NAME)
            data = save({key: value.cpu().contiguous() for key, value in weights.items()})
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_whole(folder / name / "pytorch_lora_weights.safetensors", methodcaller("write", data))


def _norm(vae: Any) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, device=vae.device).reshape(-1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


@contextmanager
def extra() -> Iterator[None]:
    """Around an import of the extra's packages. Raises: WanError, with the command that installs them."""
    try:
        yield
    except ImportError as error:
        raise WanError(f"Wan needs {error.name}: pip install 'labtop[video]'") from error
