"""Measures the weights that a trial has handed over, with the files as the study found them. Frozen.

    python -m video_recycle.study.audit        # told by LABTOP_HANDOVER; run by the loop

Weights are numbers and the network is the study's, so that nothing of an experiment runs here: the score is made by
this code alone, and a number that the script printed itself is not believed. The starts are held out: no process of an
experiment can read what they are drawn with. What is left to be found by others: whether the training kept to its
budget (the loop judges by the time it took), and weights that a script brings along instead of training them (they
would stand in its diff).
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from video_recycle import tiny
from video_recycle.model import TinyDiT
from video_recycle.study.harness import HANDED_OVER, SCENES, held_out, score, show
from video_recycle.train import TrainingError, load_weights

LARGEST = 64 << 20
"""Bytes of a file of weights; the network's own are less than one MiB."""
GROWN = 1.5
"""So many times the base model's error in the first clip is odd: the short term was given away for the long one."""


class Red(Exception):
    """The audit need not go on; the message says what was found."""


def read(folder: Path) -> TinyDiT:
    """The network with the weights in `folder`, where a hostile process has written. Raises: Red."""
    try:
        # A link might lead to what the trial could not read, and a pipe would never end.
        with open(os.open(folder / HANDED_OVER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise Red(f"{HANDED_OVER} is no plain file of at most {LARGEST >> 20} MiB")
            weights = load(file.read(LARGEST))
    except FileNotFoundError:
        raise Red("the trial left no weights") from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise Red(f"the weights cannot be read: {error}") from None
    model = tiny.base()
    if any(not value.is_floating_point() or not value.isfinite().all() for value in weights.values()):
        raise Red("the weights are not finite")
    try:
        load_weights(model, weights, HANDED_OVER)
    except TrainingError as error:
        raise Red(str(error)) from None
    return model


def main() -> None:
    folder = os.environ.get("LABTOP_HANDOVER")
    if not folder:
        sys.exit(
            "LABTOP_HANDOVER is not set: the loop runs this behind a trial; by hand, run video_recycle.study.train"
        )
    try:
        model = read(Path(folder))
    except Red as found:
        print(f"finding: {' '.join(str(found).split())[:200]}\naudit: red")
        return
    numbers = score(model)
    world = tiny.starts(SCENES, held_out())
    base = tiny.drift(tiny.play(tiny.base(), world, 1), world)[0].look
    show(numbers)
    worse = numbers["look_at_clip_1"] / base
    if worse > GROWN:
        print(f"finding: in the first clip its error is {worse:.2f} times the base model's")
    print(f"audit: {'amber' if worse > GROWN else 'green'}")


if __name__ == "__main__":
    main()
