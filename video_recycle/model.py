"""A video diffusion transformer small enough for two CPU cores, conditioned as Wan's image-to-video models are.

Beside the noisy latents it sees, frame by frame, the condition's latents and a mask of which frames are given. All
tokens attend to all; σ scales, shifts and gates every block (adaLN, with Wan's one table per block); names are those of
diffusers, so that LoRA takes the same targets on both scales.

The network predicts clean latents, mostly by saying where they come from, and the velocity follows. At each place p,

    x̂0(p) = Σ_d w_d(p)·c(p + d) + w_r(p)·r(p) + s·F(p)      v̂ = (x - x̂0) / σ

c is the last given frame, d runs over the places near p, r is the padding (the reference), the weights w add up to one,
and F is what none of these can show. That is the way of dynamic filters (arXiv 1605.08247): things move as they look. A
fresh model copies the last frame, and what it need not do is carry the noise, or all of a frame, through its narrow
tokens (arXiv 2511.13720). Near σ = 0 the division stops at `FLOOR`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_recycle.flow import like

SPREAD = 0.2
"""s: the root mean square distance, in latents, of a frame in a clip from the last given one."""
STAY = 6.0
"""By how much a fresh model's logit of d = 0 is above all others: 94 % of a place comes from itself."""
FLOOR = 0.05


class TinyDiT(nn.Module):
    """channels, height, width: of a latent frame; frames: of a clip, which positions are learned for.

    reach: how far, in latents and both ways, a place looks for where it comes from.
    """

    def __init__(
        self,
        channels: int = 3,
        frames: int = 8,
        height: int = 12,
        width: int = 12,
        *,
        dim: int = 64,
        layers: int = 3,
        heads: int = 4,
        patch: int = 4,
        reach: int = 2,
    ) -> None:
        super().__init__()
        self.patch, self.reach = patch, reach
        rows, columns = height // patch, width // patch
        self.patch_embedding = nn.Linear((3 * channels + 1) * patch**2, dim)
        self.place = nn.Parameter(0.02 * torch.randn(rows * columns, dim))
        self.moment = nn.Parameter(0.02 * torch.randn(frames, 1, dim))
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, 3, dim // 2), persistent=False)
        self.time_embedder = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(dim)
        near = (2 * reach + 1) ** 2
        self.proj_out = nn.Linear(dim, (channels + near + 1) * patch**2)
        nn.init.zeros_(self.proj_out.weight)
        with torch.no_grad():
            self.proj_out.bias.zero_().view(-1, patch**2)[channels + near // 2] = STAY

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor, mask: Tensor, prompt: object = None) -> Tensor:
        """The velocity. x, condition: `[B, C, T, H, W]`; sigma: `[B]`; mask: `[B, 1, T, H, W]`, 1 where given."""
        level = like(sigma, x)
        last, padding = _last_given(condition, mask), condition[:, :, -1:]
        tokens = self.patch_embedding(self._patches(torch.cat([x, condition, last, mask], 1)))
        tokens = (
            tokens.reshape(len(x), x.shape[2], -1, tokens.shape[2]) + self.place + self.moment[: x.shape[2]]
        ).flatten(1, 2)
        waves = sigma.to(x)[:, None] * self.frequencies
        time = self.time_proj(self.time_embedder(torch.cat([waves.cos(), waves.sin()], 1))).unflatten(1, (6, -1))
        for block in self.blocks:
            tokens = block(tokens, time)
        answer = self._frames(self.proj_out(self.norm_out(tokens)), x.shape)
        rest, logits = answer[:, : x.shape[1]], answer[:, x.shape[1] :]
        sources = torch.cat([self._near(last), padding.expand_as(last)[:, :, None]], 2)
        clean = (logits.softmax(1)[:, None] * sources).sum(2) + SPREAD * rest
        velocity: Tensor = (x - clean) / level.clamp_min(FLOOR)
        return velocity

    def _near(self, x: Tensor) -> Tensor:
        """What stands around each place, `[B, C, (2·reach + 1)², T, H, W]`; the edge goes on beyond it."""
        around = F.pad(x.transpose(1, 2).flatten(0, 1), [self.reach] * 4, mode="replicate")
        count, channels, frames, height, width = x.shape
        blocks = F.unfold(around, 2 * self.reach + 1).reshape(count, frames, channels, -1, height, width)
        return blocks.permute(0, 2, 3, 1, 4, 5)

    def _patches(self, x: Tensor) -> Tensor:
        """`[B, C, T, H, W]` to `[B, tokens, C·p·p]`."""
        return F.pixel_unshuffle(x.transpose(1, 2), self.patch).flatten(3).transpose(2, 3).flatten(1, 2)

    def _frames(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """The way back, `[B, channels answered, T, H, W]` with T, H and W of `shape`."""
        _, _, frames, height, width = shape
        grid = (frames, height // self.patch, width // self.patch)
        folded = tokens.reshape(len(tokens), *grid, -1).permute(0, 1, 4, 2, 3)
        return F.pixel_shuffle(folded, self.patch).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.to_q, self.to_k, self.to_v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.to_out = nn.Linear(dim, dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: `[B, tokens, dim]`; time: `[B, 6, dim]`, shift, scale and gate of attention and of ffn."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + time)[:, :, None].unbind(1)
        h = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = (to(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        x = x + gate1 * self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)
        return x


def _last_given(condition: Tensor, mask: Tensor) -> Tensor:
    """The condition's own frame where one is given, and the last of these ever after: `[B, C, T, H, W]`."""
    count = int(mask[0, 0, :, 0, 0].sum())
    return torch.cat([condition[:, :, :count], condition[:, :, count - 1 : count].expand_as(condition)], 2)[
        :, :, : condition.shape[2]
    ]
