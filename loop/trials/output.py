"""What a training script prints -> log lines, steps and a summary. Pure, incremental, and trusting nothing."""

from __future__ import annotations

import codecs
import math
import re
import sys

import msgspec

LONGEST_LINE = 4096
"""Characters of a line that are kept."""

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b[\]PX^_].*?(?:\x1b\\|\x07|$)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
    re.DOTALL,
)
_STEP = re.compile(
    r"^\s*(?:step|iter(?:ation)?)[ :=]*(\d{1,15})(?!\d)(?:\s*/\s*(\d{1,15})(?!\d))?\s*(?:\(\s*([\d.]+)\s*%\))?",
    re.IGNORECASE,
)
_LOSS = re.compile(r"(?:train[ _])?loss[ :=]*([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))", re.IGNORECASE)
_SPEED = re.compile(r"tok(?:ens)?/s(?:ec)?[ :=]*([\d,.]+)", re.IGNORECASE)
_MFU = re.compile(r"mfu[ :=]*([\d.]+)\s*%?", re.IGNORECASE)
_SUMMARY = re.compile(
    r"^([A-Za-z_]\w*)\s*:\s+([-+]?(?:(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf))\s*$", re.IGNORECASE
)


def clean(text: str) -> str:
    """`text` without control sequences, control characters, direction marks and lone surrogates.

    Line feeds stay, tabs become spaces.
    """
    return _CONTROL.sub("", text.expandtabs(4))


class Progress(msgspec.Struct, frozen=True):
    """One progress line: `progress` and `mfu` as shares in 0..1, speed in tokens per second."""

    step: int
    loss: float
    progress: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None


class OutputParser:
    """Feed it bytes as they come, in any pieces; a line ends at LF or CR."""

    def __init__(self) -> None:
        self.summary: dict[str, list[float]] = {}
        """Every `key: number` line, with all the values printed under that key."""
        self.last_lines: list[str] = []
        """The last lines that were no progress, for the reason of a crash."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> tuple[list[str], list[Progress]]:
        """The log lines and the progress that `data` completes. `final`: the last line may lack its end."""
        pieces = re.split(r"[\r\n]", self._rest + self._decoder.decode(data, final))
        self._rest = "" if final else pieces.pop()[:LONGEST_LINE]
        lines, steps = [], []
        for piece in pieces:
            text = clean(piece[:LONGEST_LINE]).rstrip()
            if not text:
                continue
            if (progress := _progress(text)) is not None:
                steps.append(progress)
                continue
            if found := _SUMMARY.match(text):
                # One string for all trials that print it: they stay in memory as long as the study.
                self.summary.setdefault(sys.intern(found[1]), []).append(float(found[2].replace(",", "")))
            lines.append(text)
        self.last_lines = [*self.last_lines, *lines][-40:]
        return lines, steps


def _progress(text: str) -> Progress | None:
    step, loss = _STEP.match(text), _LOSS.search(text)
    # A loss that is no number is no point of a curve, but a line that a person must see.
    if not step or not loss or not math.isfinite(float(loss[1])):
        return None
    share = None
    if step[3]:
        share = _number(step[3], 0.01)
    elif step[2] and int(step[2]):
        share = int(step[1]) / int(step[2])
    speed, mfu = _SPEED.search(text), _MFU.search(text)
    return Progress(
        step=int(step[1]),
        loss=float(loss[1]),
        progress=share,
        tokens_per_second=_number(speed[1]) if speed else None,
        mfu=_number(mfu[1], 0.01) if mfu else None,
    )


def _number(text: str, scale: float = 1.0) -> float | None:
    try:
        return float(text.replace(",", "")) * scale
    except ValueError:
        return None
