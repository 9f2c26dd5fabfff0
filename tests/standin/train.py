"""A stand-in for a trainer: a known bowl in place of a loss, in milliseconds instead of minutes."""

import os
import sys
import time
from pathlib import Path

LEARNING_RATE = 0.02  # 0.001..0.5 (log) — the bowl's bottom is at 0.1
WIDTH = 64  # one of: 32, 64, 128, 256 — wider is better here
DEPTH = 4  # 1..8 — shallower is better here
STEPS = 5
SECONDS = 0.0


def main() -> None:
    import math

    control = Path(os.environ.get("LABTOP_CONTROL", "/nonexistent"))
    if control.is_dir():
        (control / "clock.json").write_text("{}")
    loss = 1.5 + 0.05 * abs(math.log(LEARNING_RATE / 0.1)) + 4 / WIDTH + 0.01 * DEPTH
    for step in range(STEPS):
        while (control / "pause").exists():
            (control / "paused").touch()
            time.sleep(0.01)
        (control / "paused").unlink(missing_ok=True)
        time.sleep(SECONDS / STEPS)
        print(f"\rstep {step:05d} ({100 * step / STEPS:.1f}%) | loss: {loss + 1 / (step + 1):.6f}", end="", flush=True)
    if handover := os.environ.get("LABTOP_HANDOVER"):
        Path(handover, "model").write_text(f"{loss:.6f}")
    print(f"\n---\nval_bpb: {loss:.6f}\npeak_vram_mb: 512.0\nnum_steps: {STEPS}")


if __name__ == "__main__":
    sys.exit(main())
