"""The machine and the run on it: devices, cores and memory, each with its recent past; speed, loss and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult

from loop.events import Device, Machine, Step
from tui import look, words
from tui.panes.pane import Pane
from tui.panes.rows import Rows
from tui.view import Topic, View

LABEL = 8
"""Columns of the labels at the left."""
READING = 10
"""Columns of the readings behind them."""


class MachinePane(Pane, can_focus=True):
    shows: ClassVar[frozenset[Topic]] = frozenset(("machine", "steps", "state"))
    number = 4
    label = "machine"

    def compose(self) -> ComposeResult:
        yield Rows()

    def show(self, view: View) -> None:
        width, height = self.content_size.width, self.content_size.height
        if width > 0:
            self.query_one(Rows).say(Text("\n").join(readings(view, width, height)[:height]))

    def copied(self, view: View) -> tuple[str, str]:
        return "\n".join(line.plain.rstrip() for line in readings(view, 100, 1000)), "the machine's readings"


def readings(view: View, width: int, height: int) -> list[Text]:
    """The pane's lines, the run first: it is what a person looks for. Devices in as many lines as there is room for."""
    above, below = _run(view, width), _idle(view)
    if not view.machine:
        return [*above, *below, Text("its first reading comes in a second", look.FAINT)]
    latest = view.machine[-1]
    below = [*_host(latest, list(view.machine), width), *below]
    pasts = [
        [sample.devices[index] for sample in view.machine if index < len(sample.devices)]
        for index in range(len(latest.devices))
    ]
    room = height - len(above) - len(below)
    for draw in (_device, _device_in_short, _device_in_a_line):
        devices = [
            line
            for index, (device, past) in enumerate(zip(latest.devices, pasts, strict=True))
            for line in draw(index, device, past, width)
        ]
        if len(devices) <= room:
            break
    return [*above, *devices, *below]


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


def _idle(view: View) -> list[Text]:
    """For how much of the study nothing trained: what the night costs beside the training."""
    known = words.idle(view.state, view.tally.busy, view.now())
    if known is None:
        return []
    share, past = known
    # Without seconds: a clock in every frame would be paid for in every frame.
    minutes = max(1, round(past / 60))
    since = f"{minutes} min" if past < 7200 else f"{past / 3600:.1f} h" if past < 172800 else f"{past / 86400:.0f} d"
    return [_line("idle", words.percent(share), Text(f"of {since} since it began", look.FAINT))]


def _device(index: int, device: Device, past: Sequence[Device], width: int) -> list[Text]:
    name = words.one_line(device.name).removeprefix("NVIDIA ")
    lines = []
    if device.utilisation is not None:
        uses = [sample.utilisation for sample in past if sample.utilisation is not None]
        lines.append(_line(f"gpu {index}", words.percent(device.utilisation), _history(uses, name, width, 0.0, 1.0)))
    else:
        lines.append(_line(f"gpu {index}", "", Text(name, look.FAINT)))
    if device.memory_used is not None and device.memory_total:
        of = f"{words.gib(device.memory_used)} of {words.gib(device.memory_total)} GiB"
        share = device.memory_used / device.memory_total
        lines.append(_line("  mem", words.percent(share), _bar_and(share, of, width)))
    if device.power is not None:
        limit = "" if device.power_limit is None else f"of {device.power_limit:.0f} W"
        powers = [sample.power for sample in past if sample.power is not None]
        history = _history(powers, limit, width, 0.0, device.power_limit or max(powers))
        lines.append(_line("  power", f"{device.power:.0f} W", history))
    heat = [sample.temperature for sample in past if sample.temperature is not None]
    clocks = [sample.clock for sample in past if sample.clock is not None]
    clock = "" if device.clock is None else f"{device.clock:.0f} MHz"
    if device.temperature is not None:
        lines.append(_line("  temp", f"{device.temperature:.0f} °C", _history(heat, "", width)))
    if device.clock is not None:
        lines.append(_line("  clock", clock, _history(clocks, "", width, 0.0, max(clocks))))
    return lines


def _device_in_short(index: int, device: Device, past: Sequence[Device], width: int) -> list[Text]:
    """Without the past of power, heat and clock."""
    lines = _device(index, device, past, width)[: 1 + (device.memory_used is not None)]
    facts = " · ".join(_facts(device))
    return [*lines, *([_line("", "", Text(facts, look.FAINT))] if facts else [])]


def _device_in_a_line(index: int, device: Device, past: Sequence[Device], width: int) -> list[Text]:
    uses = [sample.utilisation for sample in past if sample.utilisation is not None]
    memory = "" if device.memory_used is None else f"{words.gib(device.memory_used)} GiB"
    facts = " ".join(fact for fact in (memory, *_facts(device)) if fact)
    room = max(4, min(_room(width), width - LABEL - READING - len(facts) - 2))
    past_uses = look.spark(uses, room, low=0.0, high=1.0).ljust(room)
    return [
        _line(
            f"gpu {index}",
            words.percent(device.utilisation),
            Text.assemble((past_uses, look.BLUE), ("  " + facts, look.FAINT)),
        )
    ]


def _facts(device: Device) -> list[str]:
    facts = []
    if device.temperature is not None:
        facts.append(f"{device.temperature:.0f} °C")
    if device.power is not None:
        limit = "" if device.power_limit is None else f"/{device.power_limit:.0f}"
        facts.append(f"{device.power:.0f}{limit} W")
    if device.clock is not None:
        facts.append(f"{device.clock:.0f} MHz")
    return facts


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
