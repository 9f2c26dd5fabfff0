"""A stand-in for NVIDIA's driver: one card, whose memory in use the file $NVML_STANDIN tells, in GiB, or "hang"."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = 0


class NVMLError(Exception):
    pass


def _used() -> int:
    while (said := Path(os.environ["NVML_STANDIN"]).read_text()) == "hang":
        time.sleep(0.05)
    return int(float(said) * 2**30)


def nvmlInit() -> None:
    pass


def nvmlDeviceGetCount() -> int:
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetName(_: int) -> str:
    return "Stand-in 80GB"


def nvmlDeviceGetMemoryInfo(_: int) -> SimpleNamespace:
    return SimpleNamespace(used=_used(), total=80 * 2**30)


def nvmlDeviceGetPowerUsage(_: int) -> int:
    return 250_000


def _untold(*_: int) -> None:
    raise NVMLError("this card does not tell")


nvmlDeviceGetUtilizationRates = nvmlDeviceGetEnforcedPowerLimit = _untold
nvmlDeviceGetTemperature = nvmlDeviceGetClockInfo = _untold
