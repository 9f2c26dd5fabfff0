"""Pretraining of a small GPT under a fixed budget, lower val_bpb is better. The one file the agent edits.

    python -m trainer.train

It reads from top to bottom: constants, model, optimizer, training. Text, clock and measure are prepare.py's, frozen.
"""

import math
import resource
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

from trainer import prepare
from trainer.prepare import DEVICE, SEED, Clock

KIND = DEVICE.type

# Learning rates are at their peak; `schedule` says when they fall. Muon trains the matrices inside layers, AdamW
# everything else.
MATRIX_LR = 0.03  # 0.002..0.2 (log) — Muon
MOMENTUM = 0.95  # 0.8..0.99 — Muon
HEAD_LR = {"cpu": 0.02, "mps": 0.008, "cuda": 0.004}[KIND]  # 0.0005..0.2 (log) — the matrix that makes logits
EMBEDDING_LR = {"cpu": 0.9, "mps": 0.5, "cuda": 0.3}[KIND]  # 0.01..4.0 (log) — token and value embeddings
BETA1 = 0.7  # 0.6..0.95 — AdamW
BETA2 = 0.95  # 0.9..0.999 — AdamW
SCALAR_LR = 0.008  # 0.001..0.2 (log) — residual scalars, gates and shifts
BIAS_LR = 0.03  # 0.005..1.0 (log) — the head's bias: how frequent tokens are, learned in the first steps
WEIGHT_DECAY = 0.0  # 0.0..0.5 — Muon, only where it agrees with the step
WARMUP = 0.0  # 0.0..0.2 — the first share of the budget, in which learning rates rise
WARMDOWN = 0.5  # 0.0..1.0 — the last share, in which they fall
FINAL_LR = 0.0  # 0.0..0.3 — what they fall to, as a share

# A small budget wants many steps of a small model: the sizes for a CPU are small for that reason.
ROWS = {"cpu": 16, "mps": 32, "cuda": 32}[KIND]  # 4..256 (log) — rows of a batch that go through the model at once
CONTEXT = {"cpu": 64, "mps": 512, "cuda": 2048}[KIND]  # 32..2048 (log) — tokens of a row in training
ACCUMULATE = {"cpu": 1, "mps": 2, "cuda": 8}[KIND]  # 1..16 (log) — batches whose gradients make one step

HEADS = {"cpu": 2, "mps": 6, "cuda": 4}[KIND]  # 1..16 (log) — attention heads
HEAD_WIDTH = {"cpu": 32, "mps": 64, "cuda": 128}[KIND]  # one of: 16, 24, 32, 48, 64, 128
WIDTH = HEADS * HEAD_WIDTH  # of the residual stream
DEPTH = {"cpu": 2, "mps": 6, "cuda": 8}[KIND]  # 1..24 (log) — layers
MLP_RATIO = 4  # 1..8 (log) — hidden units of the MLP, in widths
WINDOWS = "SL"  # one of: "L", "SL", "SSSL" — layers that see half the context (S) or all (L), repeated; the last is L
VALUE_EMBEDDINGS = True  # a second embedding of each token, added to the values of every other layer
SHIFT = True  # lets attention see the position before, in each channel by a learned amount
SOFTCAP = {"cpu": 0.0, "mps": 15.0, "cuda": 15.0}[KIND]  # 0.0..30.0 — bounds logits; 0: off (tanh is slow on a CPU)
ROPE_BASE = 10000.0  # 1000.0..100000.0 (log) — the longest wavelength of positions

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "3090": 71e12}
"""Dense bf16 operations a second, as the makers state them; elsewhere one large product is timed."""


# --------------------------------------------------------------------------------------------------------------------
# Model


def norm(x: torch.Tensor) -> torch.Tensor:
    """RMS norm without weights: the layers behind it have their own."""
    return F.rms_norm(x, (x.size(-1),))


def rotary(length: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each [length, 1, width / 2]."""
    frequency = ROPE_BASE ** -(torch.arange(0, width, 2, device=device) / width)
    angle = torch.outer(torch.arange(length, device=device), frequency)[:, None]
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair of x [B, T, H, D] by its position's angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).type_as(x)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """Causal attention of [B, H, T, D] over the last `window` positions."""
    length = q.size(2)
    if KIND != "cpu" and window >= length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    at = torch.arange(length, device=q.device)
    distance = at[:, None] - at
    seen = (distance >= 0) & (distance < window)
    if KIND != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    # On a CPU plain products take half the time of SDPA's kernel at these sizes.
    scores = (q @ k.transpose(-1, -2)) * q.size(-1) ** -0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


class Layer(nn.Module):
    """Attention, then an MLP with squared ReLU."""

    def __init__(self, index: int, vocabulary: int) -> None:
        super().__init__()
        pattern = (WINDOWS * DEPTH)[:DEPTH]
        self.sees_all = pattern[index] == "L" or index == DEPTH - 1
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, MLP_RATIO * WIDTH, bias=False)
        self.down = nn.Linear(MLP_RATIO * WIDTH, WIDTH, bias=False)
        with_values = VALUE_EMBEDDINGS and index % 2 == (DEPTH - 1) % 2
        self.values = nn.Embedding(vocabulary, WIDTH) if with_values else None
        self.value_gate = nn.Linear(WIDTH, HEADS, bias=False) if with_values else None
        self.shift = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        h = norm(x)
        if SHIFT:
            h = h + self.shift * F.pad(h[:, :-1], (0, 0, 1, 0))
        q, k, v = self.qkv(h).view(batch, length, 3, HEADS, HEAD_WIDTH).unbind(2)
        if self.values is not None and self.value_gate is not None:
            gate = 2 * torch.sigmoid(self.value_gate(h))[..., None]
            v = v + gate * self.values(tokens).view_as(v).to(v.dtype)
        # Norms on q and k keep attention's logits in bounds at Muon's learning rates.
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = attend(q, k, v, length if self.sees_all else (length + 1) // 2)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(F.relu(self.up(norm(x))).square())


class GPT(nn.Module):
    """Tokens [B, T] -> logits [B, T, vocabulary]. It is never given a target."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.layers = nn.ModuleList(Layer(index, vocabulary) for index in range(DEPTH))
        self.head = nn.Linear(WIDTH, vocabulary)
        # Per layer: how much of the stream goes on, and how much of the embedding is mixed in again.
        self.stream = nn.Parameter(torch.ones(DEPTH))
        self.again = nn.Parameter(torch.full((DEPTH,), 0.5))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Every layer starts as the identity: what writes into the stream starts at zero."""
        scale = (3 / WIDTH) ** 0.5
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.head.weight, std=0.003)
        nn.init.zeros_(self.head.bias)
        for layer in self.layers:
            nn.init.uniform_(layer.qkv.weight, -scale, scale)
            nn.init.uniform_(layer.up.weight, -scale, scale)
            nn.init.zeros_(layer.out.weight)
            nn.init.zeros_(layer.down.weight)
            if layer.values is not None:
                nn.init.uniform_(layer.values.weight, -scale, scale)
                nn.init.zeros_(layer.value_gate.weight)

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """The stream before the head, [B, T, WIDTH]."""
        cos, sin = rotary(tokens.size(1), HEAD_WIDTH, tokens.device)
        x = norm(self.embedding(tokens))
        first = x
        for index, layer in enumerate(self.layers):
            x = layer(self.stream[index] * x + self.again[index] * first, tokens, cos, sin)
        return norm(x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.head(hidden).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP) if SOFTCAP else logits

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast(KIND, torch.bfloat16, enabled=KIND == "cuda"):
            return self.logits(self.hidden(tokens))

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean nats per token."""
        with torch.autocast(KIND, torch.bfloat16, enabled=KIND == "cuda"):
            hidden, targets = self.hidden(tokens).flatten(0, 1), targets.flatten()
            if KIND == "cpu":
                return HeadLoss.apply(hidden, self.head.weight, self.head.bias, targets)
            return F.cross_entropy(self.logits(hidden), targets)


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of `logits` and its gradients in one go, 64 positions at a time.

    On a CPU the head is most of the work. In pieces that stay in its cache, and without a second pass for the gradient,
    it takes half the time.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets):
        """[N, WIDTH], [vocabulary, WIDTH], [N] -> mean nats."""
        nats = hidden.new_zeros(())
        d_hidden, d_weight, d_bias = torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
        for h, d_h, t in zip(hidden.split(64), d_hidden.split(64), targets[:, None].split(64), strict=True):
            logits = torch.addmm(bias, h, weight.T)
            if SOFTCAP:
                logits = SOFTCAP * torch.tanh_(logits.div_(SOFTCAP))
            d_logits = logits.softmax(-1)
            nats -= d_logits.gather(1, t).clamp_min(1e-30).log().sum()
            d_logits.scatter_add_(1, t, torch.full_like(h[:, :1], -1.0))
            if SOFTCAP:
                d_logits *= 1 - (logits / SOFTCAP) ** 2
            torch.mm(d_logits, weight, out=d_h)
            d_weight.addmm_(d_logits.T, h)
            d_bias += d_logits.sum(0)
        ctx.save_for_backward(*(gradient.div_(len(hidden)) for gradient in (d_hidden, d_weight, d_bias)))
        return nats / len(hidden)

    @staticmethod
    def backward(ctx, upstream):
        return (*(gradient * upstream for gradient in ctx.saved_tensors), None)


# --------------------------------------------------------------------------------------------------------------------
# Optimizer


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Each of [N, rows, columns] with its singular values brought near 1, by five Newton-Schulz steps.

    Source: Keller Jordan, Muon (2024), with its quintic's coefficients.
    """
    x = matrices.bfloat16() if KIND == "cuda" else matrices
    wide = x.size(-2) <= x.size(-1)
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is an orthogonal matrix. Matrices of one shape make one group and step together."""

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        shapes = sorted({tuple(matrix.shape) for matrix in matrices})
        groups = [{"params": [m for m in matrices if tuple(m.shape) == shape]} for shape in shapes]
        super().__init__(groups, {"lr": MATRIX_LR})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            matrices = group["params"]
            gradients = torch.stack([matrix.grad for matrix in matrices])
            state = self.state[matrices[0]]
            momentum = state.setdefault("momentum", torch.zeros_like(gradients))
            momentum.lerp_(gradients, 1 - MOMENTUM)
            updates = orthogonalize(gradients.lerp(momentum, MOMENTUM))
            rows, columns = matrices[0].shape
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            for matrix, update in zip(matrices, updates.unbind(), strict=True):
                if WEIGHT_DECAY:
                    matrix.mul_(1 - group["lr"] * WEIGHT_DECAY * (update * matrix > 0))
                matrix.sub_(update, alpha=rate)


def optimizers(model: GPT) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    matrices = [w for layer in model.layers for w in (layer.qkv, layer.out, layer.up, layer.down)]
    inner = [linear.weight for linear in matrices]
    embeddings = [model.embedding.weight, *(layer.values.weight for layer in model.layers if layer.values is not None)]
    known = {id(p) for p in (*inner, *embeddings, *model.head.parameters())}
    scalars = [p for p in model.parameters() if id(p) not in known]
    adam = torch.optim.AdamW(
        [
            {"params": embeddings, "lr": EMBEDDING_LR},
            {"params": [model.head.weight], "lr": HEAD_LR},
            {"params": [model.head.bias], "lr": BIAS_LR},
            {"params": scalars, "lr": SCALAR_LR},
        ],
        betas=(BETA1, BETA2),
        eps=1e-10,
        weight_decay=0.0,
        fused=True,
    )
    return [Muon(inner), adam]


def schedule(progress: float) -> float:
    """The learning rates' factor when `progress` of the budget is used: up, flat, down."""
    if progress < WARMUP:
        return progress / WARMUP
    if progress > 1 - WARMDOWN:
        return FINAL_LR + (1 - FINAL_LR) * (1 - progress) / WARMDOWN
    return 1.0


# --------------------------------------------------------------------------------------------------------------------
# Training


def peak_flops() -> float:
    """What this device can do in a second: as its maker states it where it is known, else as a large product shows."""
    if KIND == "cuda":
        name = torch.cuda.get_device_name(DEVICE)
        for known, flops in PEAK_FLOPS.items():
            if known in name:
                return flops
    a = torch.randn(1024, 1024, device=DEVICE, dtype=torch.bfloat16 if KIND == "cuda" else torch.float32)
    times = []
    for _ in range(3):
        begun = prepare.now()
        a @ a
        times.append(prepare.now() - begun)
    return 2 * 1024**3 / max(1e-9, min(times))


def peak_memory() -> float:
    """MiB: of the device where it tells, else of this process."""
    if KIND == "cuda":
        return torch.cuda.max_memory_allocated(DEVICE) / 2**20
    if KIND == "mps":
        return torch.mps.driver_allocated_memory() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    text = prepare.load_text()
    model = GPT(text.tokenizer.n_vocab).to(DEVICE)
    parameters = sum(p.numel() for p in model.parameters())
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    flops_per_token = 6 * (parameters - tables) + 6 * DEPTH * WIDTH * CONTEXT
    tokens_per_step = ROWS * CONTEXT * ACCUMULATE
    peak = peak_flops()
    loss_of = torch.compile(model.loss, dynamic=False) if KIND == "cuda" else model.loss
    steppers = optimizers(model)
    rates = [(group, group["lr"]) for stepper in steppers for group in stepper.param_groups]
    batches = prepare.batches(text, ROWS, CONTEXT)
    diverged = 1.5 * math.log(text.tokenizer.n_vocab)
    print(f"{parameters / 1e6:.2f}M parameters, {tokens_per_step} tokens a step, {prepare.BUDGET:g} s on {DEVICE}")

    clock = Clock()
    smooth = 0.0
    while clock.step():
        factor = schedule(clock.progress)
        parts = []
        for _ in range(ACCUMULATE):
            parts.append(loss_of(*next(batches)) / ACCUMULATE)
            parts[-1].backward()
        loss = sum(part.item() for part in parts)
        if not loss < diverged:  # NaN is not less than anything.
            sys.exit(f"\nstopped at step {clock.steps}: the loss is {loss:.3f}")
        for group, rate in rates:
            group["lr"] = rate * factor
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        smooth = loss if clock.steps == 1 else 0.9 * smooth + 0.1 * loss
        speed = tokens_per_step / clock.pace if clock.pace else 0.0
        print(
            f"\rstep {clock.steps:05d} ({100 * clock.progress:.1f}%) | loss: {smooth:.6f} | lrm: {factor:.2f} | "
            f"dt: {1000 * clock.pace:.0f}ms | tok/sec: {speed:,.0f} | "
            f"mfu: {100 * speed * flops_per_token / peak:.1f}% | remaining: {clock.remaining:.0f}s    ",
            end="",
            flush=True,
        )

    speed = tokens_per_step * clock.charged_steps / clock.charged
    summary = {
        "peak_vram_mb": peak_memory(),
        "mfu_percent": 100 * speed * flops_per_token / peak,
        "tokens_per_second": speed,
        "total_tokens_M": clock.steps * tokens_per_step / 1e6,
        "num_steps": clock.steps,
        "num_params_M": parameters / 1e6,
        "depth": DEPTH,
    }
    prepare.finish(model, text, ROWS, clock, summary)


if __name__ == "__main__":
    main()
