"""The machine and the run on it: devices, cores and memory, each with its recent past; speed, loss and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult

from loop.events import Device, Machine, Step
from tui import look, words
from tui.panes.pane import Pane, Words
from tui.view import Topic, View

LABEL = 7
"""Columns of the labels at the left."""
READING = 9
"""Columns of the readings behind them."""


class MachinePane(Pane, can_focus=True):
    shows: ClassVar[frozenset[Topic]] = frozenset(("machine", "steps", "state"))
    number = 4
    label = "machine"

    DEFAULT_CSS = """
    MachinePane Words { height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def compose(self) -> ComposeResult:
        yield Words()

    def show(self, view: View) -> None:
        width, height = self.content_size.width, self.content_size.height
        if width > 0:
            self.query_one(Words).say(Text("\n").join(readings(view, width)[:height]))


def readings(view: View, width: int) -> list[Text]:
    """The pane's lines, the run first: it is what a person looks for."""
    lines = _run(view, width)
    if not view.machine:
        return [*lines, Text("its first reading comes in a second", look.FAINT)]
    latest = view.machine[-1]
    lines.append(Text())
    for index, device in enumerate(latest.devices):
        past = [sample.devices[index] for sample in view.machine if index < len(sample.devices)]
        lines.extend(_device(index, device, past, width))
    lines.extend(_host(latest, list(view.machine), width))
    return lines


def _run(view: View, width: int) -> list[Text]:
    step, experiment, trial = view.step, view.state.measuring, words.training(view.state)
    share = words.share_spent(view.state, step)
    if step is None or share is None or experiment is None or trial is None:
        said = "the trial starts" if trial else "its audit runs" if experiment else "nothing trains now"
        return [_line("run", "", Text(said, look.FAINT))]
    used = words.spent(experiment, step, view.now())
    clock = f"{words.duration(used)} of {words.duration(trial.budget)}"
    losses = [past.loss for past in view.steps]
    lines = [
        _line("budget", words.percent(share), _bar_and(share, clock, width)),
        _line("loss", f"{step.loss:.4f}", _history(look.thin_out(losses, _room(width)), f"step {step.step}", width)),
    ]
    if step.tokens_per_second is not None:
        speeds = [past.tokens_per_second for past in view.steps if past.tokens_per_second is not None]
        mfu = "" if step.mfu is None else f"mfu {words.percent(step.mfu)}"
        past = look.thin_out(speeds, _room(width))
        lines.append(_line("tok/s", words.amount(step.tokens_per_second), _history(past, mfu, width, low=0.0)))
    return lines


def _device(index: int, device: Device, past: Sequence[Device], width: int) -> list[Text]:
    name = words.one_line(device.name).removeprefix("NVIDIA ")
    facts = []
    if device.temperature is not None:
        facts.append(f"{device.temperature:.0f} °C")
    if device.power is not None:
        limit = "" if device.power_limit is None else f"/{device.power_limit:.0f}"
        facts.append(f"{device.power:.0f}{limit} W")
    if device.clock is not None:
        facts.append(f"{device.clock:.0f} MHz")
    uses = [sample.utilisation for sample in past if sample.utilisation is not None]
    lines = []
    if device.utilisation is not None:
        lines.append(_line(f"gpu {index}", words.percent(device.utilisation), _history(uses, "", width, 0.0, 1.0)))
    if device.memory_used is not None and device.memory_total:
        of = f"{words.gib(device.memory_used)} of {words.gib(device.memory_total)} GiB"
        share = device.memory_used / device.memory_total
        lines.append(_line("  mem", words.percent(share), _bar_and(share, of, width)))
    lines.append(_line("", "", Text(" · ".join([name, *facts]), look.FAINT)))
    return lines


def _host(latest: Machine, past: Sequence[Machine], width: int) -> list[Text]:
    busy = [sum(sample.cpu) / len(sample.cpu) for sample in past if sample.cpu]
    lines = []
    if busy:
        lines.append(_line("cpu", words.percent(busy[-1]), _history(busy, f"load {latest.load:.1f}", width, 0.0, 1.0)))
        cores = look.levels(latest.cpu)
        room = max(1, width - LABEL)
        lines.append(_line("cores", "", Text(cores if len(cores) <= room else cores[: room - 1] + "…", look.BLUE)))
    share = latest.memory_used / latest.memory_total if latest.memory_total else 0.0
    of = f"{words.gib(latest.memory_used)} of {words.gib(latest.memory_total)} GiB"
    lines.append(_line("ram", words.percent(share), _bar_and(share, of, width)))
    return lines


def _line(label: str, reading: str, rest: Text) -> Text:
    shown = f"{reading:>{READING - 2}}  " if reading else ""
    return Text.assemble((f"{label:<{LABEL}}", look.FAINT), (shown, f"bold {look.INK}"), rest)


def _room(width: int) -> int:
    """Columns for a bar or a history: what is left when the words behind it have their place."""
    return max(4, width - LABEL - READING - 15)


def _bar_and(share: float, words_behind: str, width: int) -> Text:
    return look.bar(share, _room(width)).append(f"  {words_behind}", look.FAINT)


def _history(
    values: Sequence[float], words_behind: str, width: int, low: float | None = None, high: float | None = None
) -> Text:
    room = _room(width)
    return Text.assemble((look.spark(values, room, low=low, high=high).ljust(room), look.BLUE)).append(
        f"  {words_behind}", look.FAINT
    )


def readings_in_short(step: Step | None, latest: Machine | None) -> Text:
    """The same in one line, for screens that have no room for the pane."""
    text = Text()
    if latest is not None:
        for index, device in enumerate(latest.devices[:2]):
            text.append(f"gpu {index} ", look.FAINT).append(words.percent(device.utilisation), look.INK).append("  ")
        if latest.cpu:
            text.append("cpu ", look.FAINT).append(words.percent(sum(latest.cpu) / len(latest.cpu)), look.INK)
        of = f"{words.gib(latest.memory_used)} of {words.gib(latest.memory_total)} GiB"
        text.append("  ram ", look.FAINT).append(of, look.INK)
    if step is not None and step.tokens_per_second is not None:
        text.append("  tok/s ", look.FAINT).append(words.amount(step.tokens_per_second), look.INK)
    return text
