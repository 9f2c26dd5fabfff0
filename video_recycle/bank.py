"""The error bank: what a model got wrong, kept per noise level, to be put back into its inputs.

It knows nothing of video. An entry is a residual of any one shape with a number, its key: for flow matching the
velocity's residual dv = v̂ - target and its σ, for a forecast the error and its horizon. Cells are anchors on the key's
axis, and an entry belongs to the nearest one.

The reference implementation of error recycling (arXiv 2510.09212) keeps two banks, of E_vid = -σ·dv and of
E_noi = (1-σ)·dv. They are multiples of each other, so (dv, σ) holds both in half the memory; at its published sizes a
full pair takes about 210 GB per process, which is why this bank has a cap in bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from video_recycle.files import write_whole

Replacement = Literal["random", "fifo", "nearest"]
"""Which entry of a full cell a new one takes the place of: any; the oldest; the most alike in L2."""

FORMAT = 1
COMPARED_AT_ONCE = 64
"""Entries that `nearest` widens to single precision at a time: bounds its memory, whatever the cell holds."""


class BankError(ValueError):
    """A bank that cannot be made, or a file that is none of this bank's. The message says what to change."""


class ErrorBank:
    """Residuals of `shape` in cells around `anchors`, in host memory.

    anchors: `[cells]`, keys in any order.
    capacity: entries per cell; fewer where `max_bytes` does not hold so many, see `capacity` of the made one.
    pool: residuals are stored as means over pool x pool blocks of their last two axes, and enlarged when drawn.
    modulation: m; what is drawn is scaled by a factor from U(1-m, 1+m).

    Raises: BankError, where not one entry per cell fits, or the shape cannot be pooled so.
    """

    def __init__(
        self,
        anchors: Tensor,
        shape: tuple[int, ...],
        *,
        capacity: int = 500,
        replacement: Replacement = "random",
        max_bytes: int = 4 << 30,
        dtype: torch.dtype = torch.float16,
        pool: int = 1,
        modulation: float = 0.0,
        seed: int = 0,
    ) -> None:
        if anchors.ndim != 1 or not len(anchors) or not anchors.isfinite().all():
            raise BankError(f"anchors want one axis of finite keys, not {tuple(anchors.shape)}")
        if pool > 1 and (len(shape) < 2 or shape[-1] % pool or shape[-2] % pool):
            raise BankError(f"residuals of shape {shape} cannot be pooled by {pool} over their last two axes")
        self.anchors = anchors.detach().float().cpu().clone()
        self.shape, self.pool, self.dtype = tuple(shape), pool, dtype
        self.replacement, self.modulation = replacement, modulation
        self._stored = self.shape if pool == 1 else (*shape[:-2], shape[-2] // pool, shape[-1] // pool)
        entry = torch.Size(self._stored).numel() * dtype.itemsize
        self.capacity = min(capacity, max_bytes // (entry * len(anchors)))
        if self.capacity < 1:
            raise BankError(
                f"{len(anchors)} cells of one entry of {entry / 2**20:.1f} MiB are more than the cap of "
                f"{max_bytes / 2**20:.1f} MiB: raise max_bytes, pool, or take fewer cells"
            )
        self.full_bytes = entry * len(anchors) * self.capacity
        """What it takes once every cell is full."""
        self._counts = [0] * len(anchors)
        self._oldest = [0] * len(anchors)
        # A cell's memory is taken when it gets its first entry; keys are kept apart, in full precision.
        self._cells: list[Tensor | None] = [None] * len(anchors)
        self._keys = torch.zeros(len(anchors), self.capacity)
        self._squares = torch.zeros(len(anchors), self.capacity)
        self._chance = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """How many entries it holds."""
        return sum(self._counts)

    def __str__(self) -> str:
        """One line for the log, to be printed before training: what it may grow to."""
        return (
            f"error bank: {len(self.anchors)} cells x {self.capacity} of {self._stored} in {self.dtype}, "
            f"{len(self)} held, {self.full_bytes / 2**30:.2f} GiB when full"
        )

    def cells(self, keys: Tensor) -> Tensor:
        """The index of the nearest anchor for each of `keys`, `[N]`."""
        return (keys.detach().float().cpu()[:, None] - self.anchors).abs().argmin(1)

    def counts(self) -> list[int]:
        """How many entries each cell holds."""
        return list(self._counts)

    @torch.no_grad()
    def add(self, residuals: Tensor, keys: Tensor) -> int:
        """Keep `residuals`, `[N, *shape]`, under `keys`, `[N]`. Returns how many were kept.

        One that is not finite, or not in the bank's precision, is left out: it would poison every input it is put in.
        """
        if residuals.shape != (len(keys), *self.shape):
            raise BankError(f"residuals of shape {tuple(residuals.shape)} are none of {(len(keys), *self.shape)}")
        small = self._pooled(residuals.detach().float()).to(self.dtype).cpu()
        kept = 0
        for entry, key, cell in zip(small, keys.detach().float().cpu(), self.cells(keys).tolist(), strict=True):
            if entry.isfinite().all() and key.isfinite():
                self._put(cell, entry, key)
                kept += 1
        return kept

    def draw(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """An entry from the cell of each of `keys`, `[N]`: residuals `[N, *shape]` and their own keys `[N]`, float32.

        Zeros where the cell is empty, so that putting them in changes nothing.
        """
        return self._take([(cell, self._below(self._counts[cell])) for cell in self.cells(keys).tolist()])

    def draw_any(self, n: int) -> tuple[Tensor, Tensor]:
        """As `draw`, but from all that is held: each entry is as likely as any other."""
        ends = torch.tensor(self._counts).cumsum(0)
        places = []
        for _ in range(n):
            at = self._below(len(self))
            cell = min(int(torch.searchsorted(ends, at, right=True)), len(self.anchors) - 1)
            places.append((cell, at - int(ends[cell]) + self._counts[cell]))
        return self._take(places)

    def state_dict(self) -> dict[str, Any]:
        """All of it, the state of its chance included, as tensors and plain values."""
        return {
            "format": FORMAT,
            "anchors": self.anchors,
            "shape": list(self.shape),
            "pool": self.pool,
            "capacity": self.capacity,
            "counts": list(self._counts),
            "oldest": list(self._oldest),
            "keys": [self._keys[cell, :count].clone() for cell, count in enumerate(self._counts)],
            "entries": [
                None if held is None else held[:count].clone()
                for held, count in zip(self._cells, self._counts, strict=True)
            ],
            "chance": self._chance.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state` holds. Replacement, precision and modulation stay this bank's own.

        Raises: BankError, and nothing is changed, where it is of another model, grid, pooling or capacity.
        """
        mine = {"format": FORMAT, "shape": list(self.shape), "pool": self.pool, "capacity": self.capacity}
        for name, wanted in mine.items():
            if state.get(name) != wanted:
                raise BankError(f"the saved bank is another one's: its {name} is {state.get(name)}, not {wanted}")
        anchors = state.get("anchors")
        if not isinstance(anchors, Tensor) or not torch.equal(anchors, self.anchors):
            raise BankError("the saved bank is another one's: its cells lie elsewhere")
        try:
            counts, oldest = [int(n) for n in state["counts"]], [int(n) for n in state["oldest"]]
            keys, squares = torch.zeros_like(self._keys), torch.zeros_like(self._squares)
            cells = [self._loaded(entries) for entries in state["entries"]]
            for cell, (count, held) in enumerate(zip(counts, cells, strict=True)):
                keys[cell, :count] = state["keys"][cell]
                if held is not None:
                    squares[cell, :count] = _squares(held[:count])
            chance = torch.Generator()
            chance.set_state(state["chance"])
        except (KeyError, TypeError, IndexError, RuntimeError) as error:
            raise BankError(f"the saved bank is damaged: {error}") from None
        self._counts, self._oldest, self._keys, self._squares = counts, oldest, keys, squares
        self._cells, self._chance = cells, chance

    def save(self, path: Path) -> None:
        """Write it whole or not at all: a full disk or a power cut leaves the file that was there before."""
        write_whole(path, lambda file: torch.save(self.state_dict(), file))

    def load(self, path: Path) -> None:
        """Take over a saved bank. Raises: BankError, FileNotFoundError."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:
            # Whatever a damaged archive makes torch, zipfile or pickle raise.
            raise BankError(f"{path.name} is no saved bank: {type(error).__name__}") from None
        if not isinstance(state, dict):
            raise BankError(f"{path.name} is no saved bank")
        self.load_state_dict(state)

    def _put(self, cell: int, entry: Tensor, key: Tensor) -> None:
        held = self._cells[cell]
        if held is None:
            held = self._cells[cell] = torch.empty(self.capacity, *self._stored, dtype=self.dtype)
        slot = self._counts[cell]
        if slot < self.capacity:
            self._counts[cell] += 1
        elif self.replacement == "random":
            slot = self._below(self.capacity)
        elif self.replacement == "fifo":
            slot = self._oldest[cell]
            self._oldest[cell] = (slot + 1) % self.capacity
        else:
            # |a - b|² = |a|² - 2ab + |b|²: with |a|² kept, each entry is read once, for one product.
            wide = entry.float().flatten()
            products = torch.cat([part.flatten(1).float() @ wide for part in _parts(held)])
            slot = int((self._squares[cell] - 2 * products).argmin())
        held[slot], self._keys[cell, slot], self._squares[cell, slot] = entry, key, _squares(entry[None])

    def _take(self, places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        entries, keys = torch.zeros(len(places), *self._stored), torch.zeros(len(places))
        for row, (cell, slot) in enumerate(places):
            held = self._cells[cell]
            if held is not None and self._counts[cell]:
                entries[row], keys[row] = held[slot].float(), self._keys[cell, slot]
        if self.modulation:
            factor = 1 + self.modulation * (2 * torch.rand(len(places), generator=self._chance) - 1)
            entries *= factor.reshape(-1, *[1] * len(self._stored))
        return self._enlarged(entries), keys

    def _below(self, n: int) -> int:
        return int(torch.randint(max(n, 1), (), generator=self._chance))

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == 1:
            return x
        return F.avg_pool2d(x.flatten(0, -3), self.pool).reshape(len(x), *self._stored)

    def _enlarged(self, x: Tensor) -> Tensor:
        return x if self.pool == 1 else x.repeat_interleave(self.pool, -2).repeat_interleave(self.pool, -1)

    def _loaded(self, entries: Tensor | None) -> Tensor | None:
        if entries is None:
            return None
        held = torch.empty(self.capacity, *self._stored, dtype=self.dtype)
        held[: len(entries)] = entries.to(self.dtype)
        return held


def _squares(entries: Tensor) -> Tensor:
    """|a|² of each of `entries`, `[N, ...]`: `[N]`, float32."""
    return torch.cat([part.flatten(1).float().square().sum(1) for part in _parts(entries)])


def _parts(entries: Tensor) -> list[Tensor]:
    return [entries[at : at + COMPARED_AT_ONCE] for at in range(0, max(1, len(entries)), COMPARED_AT_ONCE)]
