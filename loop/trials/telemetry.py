"""The machine's readings: CPU and memory by psutil, NVIDIA devices by NVML in a process of its own.

A killed CUDA process can leave the driver hanging, and every caller of NVML with it. So NVML is asked in a child, which
is given up when it stays silent; the engine never waits for a driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import msgspec
import psutil

from loop.events import Device, Machine

HELD_SHARE = 0.05
"""Of a device's memory: more than that, held by nobody's trial, is in the next one's way."""

_devices = msgspec.json.Decoder(tuple[Device, ...])


def detect_device() -> Literal["cuda", "mps", "cpu"]:
    """The best kind of device here, without loading torch."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "loop.trials.telemetry"], capture_output=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return "cpu"
    return "cuda" if asked.returncode == 0 and _devices.decode(asked.stdout) else "cpu"


def still_held(idle: Machine | None, now: Machine | None) -> str:
    """What an NVIDIA device holds beyond what it held when idle, in words; "" where that is nothing to speak of."""
    if idle is None or now is None:
        return ""
    for index, (before, device) in enumerate(zip(idle.devices, now.devices, strict=False)):
        if before.memory_used is not None and device.memory_used is not None and device.memory_total:
            held = device.memory_used - before.memory_used
            if held > HELD_SHARE * device.memory_total:
                return f"device {index} ({device.name}) still holds {held / 2**30:.1f} GiB"
    return ""


async def machine_samples(interval: float) -> AsyncIterator[Machine]:
    """A reading every `interval` seconds, for ever. Devices are left out while their driver does not answer."""
    psutil.cpu_percent(percpu=True)
    async with _DeviceReader(interval) as reader:
        while True:
            await asyncio.sleep(interval)
            memory = psutil.virtual_memory()
            yield Machine(
                time=time.time(),
                cpu=tuple(share / 100 for share in psutil.cpu_percent(percpu=True)),
                memory_used=memory.total - memory.available,
                memory_total=memory.total,
                load=os.getloadavg()[0],
                devices=reader.latest(),
            )


class _DeviceReader:
    """Keeps the child that asks NVML, and its latest answer."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answer: tuple[Device, ...] = ()
        self._answered = 0.0

    async def __aenter__(self) -> _DeviceReader:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "loop.trials.telemetry",
            str(self._interval),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._reading is not None
        self._reading.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        # A child that hangs in the driver cannot be reaped; it is not waited for.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 1.0)

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for line in stream:
            self._answer, self._answered = _devices.decode(line), time.monotonic()

    def latest(self) -> tuple[Device, ...]:
        return self._answer if time.monotonic() - self._answered < 5 * self._interval else ()


def _read_devices(nvml: Any) -> tuple[Device, ...]:
    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except nvml.NVMLError:
            return None  # Many cards do not tell everything.

    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        use, memory = ask(nvml.nvmlDeviceGetUtilizationRates, handle), ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        power, limit = ask(nvml.nvmlDeviceGetPowerUsage, handle), ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        found.append(
            Device(
                name=str(ask(nvml.nvmlDeviceGetName, handle) or f"device {index}"),
                utilisation=use.gpu / 100 if use else None,
                memory_used=memory.used if memory else None,
                memory_total=memory.total if memory else None,
                temperature=ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
                power=power / 1000 if power is not None else None,
                power_limit=limit / 1000 if limit is not None else None,
                clock=ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            )
        )
    return tuple(found)


def _child(interval: float | None) -> None:
    """Print the devices as a line of JSON every `interval` seconds until stdin closes; None: once."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        sys.exit("no NVIDIA driver here")
    while True:
        sys.stdout.write(msgspec.json.encode(_read_devices(pynvml)).decode() + "\n")
        sys.stdout.flush()
        if interval is None or select.select([sys.stdin], [], [], interval)[0]:
            return


if __name__ == "__main__":
    _child(float(sys.argv[1]) if len(sys.argv) > 1 else None)
