"""Readings of a device, by the real child that takes them; the driver beneath it is a stand-in that can hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from loop import commands, engine, lane
from loop.trials.telemetry import detect_device

NVML = Path(__file__).parents[2] / "standin" / "nvml"


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Sets what the card's memory holds, in GiB, or that its driver hangs."""
    file = tmp_path / "held"
    file.write_text("1")
    monkeypatch.setenv("NVML_STANDIN", str(file))
    monkeypatch.setenv("PYTHONPATH", str(NVML))
    monkeypatch.setattr(engine, "MACHINE_INTERVAL", 0.1)
    monkeypatch.setattr(lane, "LOOK", 0.05)
    monkeypatch.setattr(lane, "ANSWERING", 1.0)
    monkeypatch.setattr(lane, "FREEING", 1.0)
    return lambda said: file.write_text(str(said))


async def test_a_device_that_keeps_a_trials_memory_gets_no_other_trial(lab, held, until):
    lab.edit("SECONDS = 0.0", "SECONDS = 1.0")  # Some readings long.
    async with lab.engine(experiments=2, device="cuda") as running:
        await until(lambda: running.lane.running, "the baseline trains")
        held(31)
        await until(lambda: running.state.mode == "paused", "the engine waits for a person")
        reason = "device 0 (Stand-in 80GB) still holds 30.0 GiB 1 s after 0000 ended; free it"
        assert reason in running.state.mode_reason and not running.lane.busy
        held(2)  # Which is nothing to speak of.
        assert (await running.do(commands.Resume())).ok
        await running.task
    device = running.lane.machine.devices[0]
    assert (device.memory_used, device.power, device.temperature) == (2 * 2**30, 250.0, None)
    assert running.state.tried == 2


async def test_a_driver_that_hangs_holds_nobody_up(lab, held):
    held("hang")
    async with lab.engine(experiments=2, device="cuda") as running:
        await running.task
    assert running.state.tried == 2 and running.lane.machine.devices == ()


def test_a_device_is_found_without_loading_torch(held):
    assert detect_device() == "cuda"
