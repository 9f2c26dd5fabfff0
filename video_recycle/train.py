"""The trainer, the same for the small world's model and for Wan: plain, with hand-made noise, or error recycling.

Of the model it knows the call in `rollout.VideoModel` and its parameters; of the data a function that draws a batch.
All of its chance comes from one generator that is saved with everything else, so a resumed training goes on as if it
had never stopped. Validation is on clean input, whatever is trained, and the weights that did best on it are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from video_recycle.bank import BankError, ErrorBank, Replacement
from video_recycle.condition import condition
from video_recycle.files import write_whole
from video_recycle.flow import SHIFT, grid, like, noised, shifted
from video_recycle.handmade import spoiled
from video_recycle.recycle import Inputs, Recycling, inject, record

Method = Literal["plain", "noise", "recycle"]
Weighting = Literal["bell", "latent"]

MOST_BROKEN = 20
"""So many steps in a row without a finite loss end a training."""
LAST, BEST = "last.pt", "best.safetensors"


class TrainingError(RuntimeError):
    """A training that cannot start or go on. The message says why, and where the last good state is."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """x0: clean latents `[B, C, T, H, W]`; reference: as in `condition`; prompt: what else the model is told."""

    x0: Tensor
    reference: Tensor | None = None
    prompt: object = None


Draw = Callable[[torch.Generator], Batch]
"""A batch, by the chance of a generator on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a training does; saved with it. Defaults are the reference implementation's where it has one."""

    method: Method = "recycle"
    steps: int = 1000
    rate: float = 1e-4
    decay: float = 0.01
    """AdamW's."""
    warmup: int = 20
    """Steps in which the rate rises; after them it falls to nothing with half a cosine."""
    clip: float = 1.0
    """The gradient's greatest norm."""
    shift: float = SHIFT
    weighting: Weighting = "bell"
    """Of the loss over σ: DiffSynth's bell, or σ², which is the error of the clean latents that v̂ leads to."""
    motion_frames: int = 1
    recycling: Recycling = field(default_factory=Recycling)
    strength: float = 0.1
    """Of hand-made noise, see `handmade`."""
    cells: int = 50
    capacity: int = 500
    replacement: Replacement = "nearest"
    bank_bytes: int = 4 << 30
    pool: int = 1
    modulation: float = 0.0
    gathered: int = 50
    """Steps in which every rank's bank gets every rank's errors; then its own alone."""
    validate_every: int = 100
    save_every: int = 100
    seed: int = 0


class Machine(Protocol):
    """What the trainer needs of `accelerate.Accelerator`."""

    @property
    def device(self) -> torch.device: ...
    @property
    def process_index(self) -> int: ...
    def prepare(self, *args: Any) -> Any: ...
    def backward(self, loss: Tensor) -> None: ...
    def gather(self, tensor: Tensor) -> Tensor: ...
    def unwrap_model(self, model: nn.Module) -> nn.Module: ...


class OneProcess:
    """A Machine without accelerate."""

    process_index = 0

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def prepare(self, *args: Any) -> Any:
        return args

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        return model


@dataclass(frozen=True)
class Step:
    """number: of the step just done, from 1; loss: NaN where it was left out; clean: validation's, where it was due."""

    number: int
    loss: float
    clean: float | None = None


class Trainer:
    """model: its parameters that want a gradient are trained, see `lora`; folder: for checkpoints, none without one.

    validation: batches of held-out clips, always measured with the same noise.

    Raises: TrainingError, BankError.
    """

    def __init__(
        self,
        model: nn.Module,
        draw: Draw,
        validation: Sequence[Batch] = (),
        *,
        settings: Settings,
        folder: Path | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.settings, self.folder, self.draw, self.validation = settings, folder, draw, validation
        self.machine: Machine = machine or OneProcess()
        trained = [value for value in model.parameters() if value.requires_grad]
        if not trained:
            raise TrainingError("nothing of the model is to be trained: add an adapter, or let its weights be trained")
        optimizer = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=settings.decay, betas=(0.9, 0.99))
        self.model, self.optimizer = self.machine.prepare(model, optimizer)
        self.chance = torch.Generator().manual_seed(settings.seed * 7919 + self.machine.process_index)
        self.done, self.best, self.broken = 0, math.inf, 0
        self.bank: ErrorBank | None = None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> Iterator[Step]:
        """Train to the last step, and tell each. May be left and taken up again."""
        while self.done < self.settings.steps:
            loss = self._step()
            self.broken = 0 if math.isfinite(loss) else self.broken + 1
            if self.broken >= MOST_BROKEN:
                kept = f"; the last good state is {self.folder / LAST}" if self.folder else ""
                raise TrainingError(f"the loss has not been finite for {self.broken} steps: lower the rate{kept}")
            self.done += 1
            last, clean = self.done == self.settings.steps, None
            if self.validation and (last or self.done % self.settings.validate_every == 0):
                clean = self.validate()
                if clean < self.best:
                    self.best = clean
                    self._keep_best()
            if self.folder and (last or self.done % self.settings.save_every == 0):
                self.save()
            yield Step(self.done, loss, clean)

    def open_bank(self, shape: tuple[int, ...]) -> ErrorBank:
        """The bank for residuals of this shape, made where there is none yet; printed, it tells its size.

        Raises: BankError, where it is of another shape.
        """
        if self.bank is None:
            self.bank = self._make_bank(shape)
        if self.bank.shape != shape:
            raise BankError(
                f"the bank holds errors of latents {self.bank.shape}, and these are {shape}: clips want one size"
            )
        return self.bank

    def validate(self) -> float:
        """Mean loss on clean input of the held-out clips, over noise levels from high to low."""
        chance = torch.Generator().manual_seed(11)
        levels = grid(8, self.settings.shift)[:-1]
        self.model.eval()
        found = []
        with torch.no_grad():
            for batch in self.validation:
                for level in levels:
                    x0, sigma = batch.x0.to(self.machine.device), level.expand(len(batch.x0))
                    noise = torch.randn(x0.shape, generator=chance).to(x0)
                    inputs, mask = self._clean(batch, x0, noise, sigma)
                    found.append(float(self._loss(self._predict(batch, inputs, mask, sigma), inputs, sigma)))
        self.model.train()
        return sum(found) / len(found)

    def save(self) -> None:
        """Write `last.pt`, whole or not at all. Raises: TrainingError, with the state before still there."""
        if self.folder is None:
            raise TrainingError("this training has no folder to save in")
        rank = self.machine.process_index
        state = {
            "settings": json.dumps(asdict(self.settings)),
            "step": self.done,
            "best": self.best,
            "bank": self.bank.state_dict() if self.bank else None,
            "chance": self.chance.get_state(),
            # Ranks differ in their banks and their chance alone.
            "weights": self.weights() if rank == 0 else None,
            "optimizer": self.optimizer.state_dict() if rank == 0 else None,
        }
        path = self.folder / _of_rank(LAST, rank)
        try:
            write_whole(path, lambda file: torch.save(state, file))
        except (OSError, RuntimeError) as error:
            # torch's archive writer tells a full disk as RuntimeError.
            before = f"the checkpoint before is whole: {path}" if path.exists() else "there is none from before"
            raise TrainingError(f"step {self.done} could not be saved ({error}); {before}") from error

    def resume(self) -> int:
        """Go on from `last.pt`; returns its step. Raises: TrainingError, BankError, FileNotFoundError."""
        if self.folder is None:
            raise TrainingError("this training has no folder to resume from")
        main = self.folder / LAST
        state = _read(main)
        mine = json.dumps(asdict(self.settings))
        if state["settings"] != mine:
            was, now = json.loads(state["settings"]), json.loads(mine)
            names = ", ".join(f"{name} {was.get(name)}" for name in now if was.get(name) != now[name])
            raise TrainingError(f"{main} is of a training with other settings: {names}. Use these, or another folder")
        rank = self.machine.process_index
        own = state if rank == 0 else _read(self.folder / _of_rank(LAST, rank))
        if own["step"] != state["step"]:
            raise TrainingError(f"rank {rank} was saved at step {own['step']}, the weights at {state['step']}")
        bank = own["bank"]
        if bank is not None:
            self.bank = self._make_bank(tuple(bank["shape"]))
            self.bank.load_state_dict(bank)
        load_weights(self.machine.unwrap_model(self.model), state["weights"], str(main))
        self.optimizer.load_state_dict(state["optimizer"])
        self.chance.set_state(own["chance"])
        self.done, self.best = state["step"], state["best"]
        return self.done

    def weights(self) -> dict[str, Tensor]:
        """What is trained, by name, on the CPU."""
        return trained_weights(self.machine.unwrap_model(self.model))

    def _step(self) -> float:
        batch = self.draw(self.chance)
        x0 = batch.x0.to(self.machine.device)
        if not x0.isfinite().all():
            return math.nan
        noise = torch.randn(x0.shape, generator=self.chance).to(x0)
        sigma = shifted(torch.rand(len(x0), generator=self.chance), self.settings.shift)
        if self.settings.method == "recycle":
            inputs, mask = self._recycled(batch, x0, noise, sigma)
        else:
            inputs, mask = self._clean(batch, x0, noise, sigma, spoil=self.settings.method == "noise")
        predicted = self._predict(batch, inputs, mask, sigma)
        loss = self._loss(predicted, inputs, sigma)
        if self.settings.method == "recycle" and self.bank is not None:
            record(
                self.bank,
                predicted,
                inputs,
                sigma,
                settings=self.settings.recycling,
                chance=self.chance,
                gather=self.machine.gather if self.done < self.settings.gathered else None,
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.machine.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        # A step along a gradient that is not finite would spoil every weight.
        if norm.isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()) if norm.isfinite() else math.nan

    def _clean(
        self, batch: Batch, x0: Tensor, noise: Tensor, sigma: Tensor, *, spoil: bool = False
    ) -> tuple[Inputs, Tensor]:
        motion = x0[:, :, : self.settings.motion_frames]
        if spoil:
            motion = spoiled(motion, self.settings.strength, self.chance)
        given, mask = condition(motion, x0.shape[2], reference=batch.reference)
        clean = torch.full((len(x0),), not spoil)
        return Inputs(x=noised(x0, noise, sigma), condition=given, target=noise - x0, clean=clean), mask

    def _recycled(self, batch: Batch, x0: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Inputs, Tensor]:
        bank = self.open_bank(tuple(x0.shape[1:]))
        given, mask = condition(x0[:, :, : self.settings.motion_frames], x0.shape[2], reference=batch.reference)
        inputs = inject(bank, x0, noise, sigma, given, settings=self.settings.recycling, chance=self.chance)
        return inputs, mask

    def _make_bank(self, shape: tuple[int, ...]) -> ErrorBank:
        settings = self.settings
        return ErrorBank(
            grid(settings.cells, settings.shift)[:-1],
            shape,
            capacity=settings.capacity,
            replacement=settings.replacement,
            max_bytes=settings.bank_bytes,
            pool=settings.pool,
            modulation=settings.modulation,
            seed=settings.seed + self.machine.process_index,
        )

    def _predict(self, batch: Batch, inputs: Inputs, mask: Tensor, sigma: Tensor) -> Tensor:
        predicted: Tensor = self.model(inputs.x, sigma.to(inputs.x), inputs.condition, mask, batch.prompt)
        return predicted

    def _loss(self, predicted: Tensor, inputs: Inputs, sigma: Tensor) -> Tensor:
        square = (predicted.float() - inputs.target.float()).square()
        return (square * like(weight(sigma, self.settings.weighting), square)).mean()

    def _rate(self) -> float:
        settings = self.settings
        rising = min(1.0, (self.done + 1) / max(1, settings.warmup))
        return settings.rate * rising * 0.5 * (1 + math.cos(math.pi * self.done / settings.steps))

    def _keep_best(self) -> None:
        if self.folder is None or self.machine.process_index:
            return
        data = save(self.weights(), metadata={"step": str(self.done), "clean_loss": f"{self.best:.6f}"})
        try:
            write_whole(self.folder / BEST, lambda file: file.write(data))
        except OSError as error:
            raise TrainingError(f"the best weights, of step {self.done}, could not be saved: {error}") from error


def weight(sigma: Tensor, weighting: Weighting) -> Tensor:
    """The loss's weight at each of `sigma`, `[B]`; about 1 on average over 0..1."""
    if weighting == "latent":
        return 3 * sigma.square()
    # exp(-2 ((t - 500) / 1000)²) over the timesteps, lowered to 0 at both ends and scaled to a mean of 1.
    bell = torch.exp(-2 * (sigma - 0.5).square()) - math.exp(-0.5)
    return bell / 0.249


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what wants a gradient, by name, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.named_parameters()
        if value.requires_grad
    }


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Put `weights` in place of those of the model's with the same names. Raises: TrainingError, nothing changed."""
    mine = dict(model.named_parameters())
    wrong = [name for name in weights if name not in mine or mine[name].shape != weights[name].shape]
    missing = [name for name, value in mine.items() if value.requires_grad and name not in weights]
    if wrong or missing:
        raise TrainingError(f"{source} is of another model or adapter: see {(wrong or missing)[0]}")
    with torch.no_grad():
        for name, value in weights.items():
            mine[name].copy_(value)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Of a safetensors file. Raises: TrainingError, FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise TrainingError(f"{path} holds no weights: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        # Whatever a damaged archive makes torch, zipfile or pickle raise.
        raise TrainingError(f"{path} is no checkpoint: {type(error).__name__}") from None
    if not isinstance(state, dict) or not {"settings", "step", "bank", "weights", "optimizer"} <= state.keys():
        raise TrainingError(f"{path} is no checkpoint of this trainer")
    return state


def _of_rank(name: str, rank: int) -> str:
    stem, dot, ending = name.partition(".")
    return name if rank == 0 else f"{stem}.{rank}{dot}{ending}"
