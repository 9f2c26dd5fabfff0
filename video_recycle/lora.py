"""Low-rank adapters through peft, on whichever model has layers of these names."""

from __future__ import annotations

from torch import nn

TARGETS = ("to_q", "to_k", "to_v", "to_out", "to_out.0", "ffn.0", "ffn.2", "ffn.net.0.proj", "ffn.net.2")
"""q, k, v, o and both layers of ffn, as the small model and as diffusers names them."""
NAME = "recycled"


def add_lora(model: nn.Module, rank: int, *, seed: int = 0) -> nn.Module:
    """`model` with all weights frozen and an adapter of this rank (alpha the same), which is all that is trained.

    A fresh adapter changes nothing: its second factor is zero.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    targets = [name for name in linear if any(name.endswith(f".{target}") for target in TARGETS)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Kaiming, as in the reference implementation.
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=True)
        return inject_adapter_in_model(config, model, adapter_name=NAME)
