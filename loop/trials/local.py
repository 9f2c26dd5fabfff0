"""Trials on this machine: the engine's side of a runner process. A restarted engine adopts what still runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from loop.events import LogLines, Outcome, SandboxKind, Step, TrialFinished
from loop.trials import confine, runner, sandbox
from loop.trials.output import OutputParser
from loop.trials.sandbox import Walls

POLL = 0.1
"""Seconds between two looks at the log."""
STARTING = 30.0
"""Seconds that a runner may take to say that it has started."""
LOG_LIMIT = 32 * 1024 * 1024
LINES_A_MESSAGE = 200
UNWRITABLE = "its output could not be written"
"""So begins the reason of a trial that was lost to a full or broken disk."""
CHUNK = 4 * 1024 * 1024
"""Bytes of the log that are read at a time."""

_PASSED_ON = {
    *("HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE"),
    *("XDG_CACHE_HOME", "LABTOP_CACHE", "HF_HOME", "HF_ENDPOINT", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
}
_PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "TORCHINDUCTOR_", "TRITON_")


class TrialSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and where. Budget and time-out are in seconds; the time-out is wall time without pauses."""

    number: int
    trial: int
    command: str
    source: Path
    """The exported copy of the commit; the command's working directory."""
    folder: Path
    """The runner's own files."""
    log: Path
    metrics: Path
    metric: str
    device: str
    seed: int
    budget: float
    timeout: float
    environment: dict[str, str]
    silence: float
    """Seconds without output and without work after which the trial is taken to hang."""
    sandbox: SandboxKind
    hidden: tuple[Path, ...] = ()
    """Of the person's: what the sandbox does not show, beside homes and temporary folders."""
    readable: tuple[Path, ...] = ()
    """What it shows all the same."""
    masked: tuple[Path, ...] = ()
    """What of that it does not."""
    audited: bool = False
    """Whether the script hands over what it trained, and need not measure it itself."""
    network: bool = False
    memory: int
    """Bytes that all its processes may take together."""
    disk: int
    """Bytes that it may have written at a time."""
    processes: int
    compiled: Path | None = None
    """Where what the baseline's compilers made is kept for the trials after it."""
    baseline: bool = False

    @property
    def control(self) -> Path:
        return self.folder / "control"

    @property
    def handover(self) -> Path:
        """Where an audited script leaves what it trained. Hostile, like all that it wrote."""
        return self.control / "handover"

    def walls(self, scratch: Path) -> Walls:
        """What the sandbox is built by, with `scratch` as the folder that stands for /tmp and the home."""
        return Walls(
            hidden=self.hidden,
            readable=self.readable,
            masked=self.masked,
            source=self.source.resolve(),
            control=self.control.resolve(),
            scratch=scratch,
            network=self.network,
            disk=self.disk,
        )


class LocalTrial:
    """One trial on this machine. Iterate `follow` to its end, then ask for the `result`."""

    def __init__(self, spec: TrialSpec, process: subprocess.Popen[bytes] | None) -> None:
        self.spec = spec
        self._process = process
        self._parser = OutputParser()
        self._result: TrialFinished | None = None

    @classmethod
    async def launch(cls, spec: TrialSpec) -> LocalTrial:
        """Start the trial. Its runner lives on if this process dies."""
        return cls(spec, await asyncio.to_thread(_start, spec))

    @classmethod
    async def adopt(cls, spec: TrialSpec) -> LocalTrial | None:
        """The trial that an earlier engine started, running or ended; None where it never started."""
        started, deadline = spec.folder / "started.json", time.monotonic() + STARTING
        # An engine that died right behind its launch left a runner that has yet to say so, and must stay the only one.
        while not started.exists() and (spec.folder / "spec.json").exists() and time.monotonic() < deadline:
            await asyncio.sleep(POLL)
        return cls(spec, None) if started.exists() else None

    async def follow(self) -> AsyncIterator[Step | LogLines]:
        """The trial's steps and log lines as they come, from its first; ends when the trial has ended."""
        begun = self._started().get("time")
        offset = 0
        self.spec.metrics.write_bytes(b"")
        with self.spec.metrics.open("ab") as metrics:
            running = True
            while running:
                running = await self._still_running()
                data = await asyncio.to_thread(_read_from, self.spec.log, offset)
                offset += len(data)
                running = running or len(data) == CHUNK  # What the trial left may take more than one look.
                lines, steps = self._parser.feed(data, final=not running)
                begun = begun or self._started().get("time")
                elapsed = max(0.0, _modified(self.spec.log) - begun) if begun else 0.0
                for progress in steps:
                    step = Step(
                        number=self.spec.number,
                        trial=self.spec.trial,
                        time=elapsed,
                        step=progress.step,
                        loss=progress.loss,
                        progress=progress.progress,
                        tokens_per_second=progress.tokens_per_second,
                        mfu=progress.mfu,
                    )
                    metrics.write(msgspec.json.encode(step) + b"\n")
                    yield step
                metrics.flush()
                for at in range(0, len(lines), LINES_A_MESSAGE):
                    part = tuple(lines[at : at + LINES_A_MESSAGE])
                    yield LogLines(number=self.spec.number, trial=self.spec.trial, lines=part)
        await asyncio.to_thread(self._finish)

    def result(self) -> TrialFinished:
        """How it ended. Only after `follow` has ended."""
        assert self._result is not None
        return self._result

    @property
    def printed(self) -> dict[str, list[float]]:
        """Every `key: number` line, with all the values printed under that key. Only after `follow` has ended."""
        return self._parser.summary

    async def kill(self, reason: str) -> None:
        """End the whole process tree; returns when nothing of it is left."""
        (self.spec.folder / "kill").write_text(reason, encoding="utf-8")
        while self._alive():
            await asyncio.sleep(0.02)

    async def pause(self) -> bool:
        """Make the trial stand still. True: the script stopped its own clock at a step; False: it was frozen.

        Returns when it stands still, or when it has ended meanwhile.
        """
        (self.spec.folder / "pause").touch()
        while self._alive():
            if (self.spec.folder / "frozen").exists():
                return False
            if (self.spec.control / "paused").exists():
                return True
            await asyncio.sleep(0.02)
        return True

    async def resume(self) -> None:
        (self.spec.folder / "pause").unlink(missing_ok=True)

    async def _still_running(self) -> bool:
        """Wait for a moment, or for the runner's end, and tell whether it still runs."""
        pid = self._runner_pid()
        if pid is None:
            return self._alive() and await asyncio.sleep(POLL / 5, result=True)
        try:
            watched = os.pidfd_open(pid)
        except (OSError, AttributeError):
            await asyncio.sleep(POLL)
            return self._alive()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(watched, ended.set)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), POLL)
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        return self._alive()

    def _started(self) -> dict[str, Any]:
        return _load(self.spec.folder / "started.json")

    def _runner_pid(self) -> int | None:
        """The runner's pid, if that process still is the runner."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        started = self._started()
        pid = started.get("runner")
        return pid if pid and runner.start_time(pid) == started["start_time"] != 0 else None

    def _alive(self) -> bool:
        return self._runner_pid() is not None

    def _finish(self) -> None:
        exited = _load(self.spec.folder / "exit.json")
        if not exited:
            _end_strays(self.spec)
        outcome, value, reason = self._outcome(exited)
        self._result = TrialFinished(
            number=self.spec.number,
            trial=self.spec.trial,
            outcome=outcome,
            value=value,
            summary={key: values[-1] for key, values in self._parser.summary.items() if math.isfinite(values[-1])},
            reason=reason,
            exit_code=exited.get("exit_code"),
            wall_seconds=exited.get("wall_seconds", 0.0),
            paused_seconds=exited.get("paused_seconds", 0.0),
            cpu_seconds=exited.get("cpu_seconds", 0.0),
        )

    def _outcome(self, exited: dict[str, Any]) -> tuple[Outcome, float | None, str]:
        if not exited:
            return "lost", None, "its runner vanished without a result"
        match exited["outcome"]:
            case "killed":
                with contextlib.suppress(OSError):
                    return "killed", None, (self.spec.folder / "kill").read_text(encoding="utf-8")
                return "killed", None, "its runner was told to end"
            case "timeout" | "hang":
                return "timeout", None, exited["reason"]
            case "unwritable":
                return "lost", None, f"{UNWRITABLE}: {exited['reason']}"
            case "exited" if exited["exit_code"] == 0:
                return self._measured(exited)
            case "exited":
                return "crash", None, self._crash_reason(exited["exit_code"])
            case _:
                return "crash", None, exited["reason"]

    def _measured(self, exited: dict[str, Any]) -> tuple[Outcome, float | None, str]:
        metric, values = self.spec.metric, self._parser.summary.get(self.spec.metric, [])
        if not values and not self.spec.audited:
            return "crash", None, f"it printed no {metric}"
        if unusable := [value for value in values if not math.isfinite(value)]:
            return "crash", None, f"{metric} is {unusable[0]}"
        if any(value != values[0] for value in values):
            return (
                "crash",
                None,
                f"it printed {metric} more than once: {', '.join(f'{value:g}' for value in values[:4])}",
            )
        left = exited.get("left", 0)
        return "ok", values[0] if values else None, f"{left} processes that it left running were ended" if left else ""

    def _crash_reason(self, code: int) -> str:
        lines = self._parser.last_lines
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        if code == confine.UNUSABLE and lines:
            return lines[-1]
        return f"exit status {code}: {lines[-1]}" if lines else f"exit status {code}, and it printed nothing"


def of_a_trial(pid: int) -> bool:
    """Whether a process, or any that it comes from, is a trial's. However it was forked, a runner is its ancestor."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return any(runner.__file__ in ancestor.cmdline() for ancestor in (process, *process.parents()))
    # It has gone, or hides: nobody who may be answered.
    return True


def _start(spec: TrialSpec) -> subprocess.Popen[bytes]:
    spec.control.mkdir(parents=True, exist_ok=True)
    cookie = uuid.uuid4().hex
    environment = _environment(spec, cookie)
    argv = shlex.split(spec.command)
    if argv[0] in ("python", "python3"):
        argv[0] = sys.executable
    argv[0] = shutil.which(argv[0], path=environment["PATH"]) or argv[0]
    if spec.audited:
        spec.handover.mkdir(exist_ok=True)
    walls = spec.walls(_scratch(spec, cookie))
    argv, variables = sandbox.wrap(spec.sandbox, walls, argv)
    leave = {}
    for name in sandbox.CACHES if spec.compiled and spec.sandbox != "off" else ():
        kept, own = Path(spec.compiled or "") / name, walls.scratch / "tmp" / name
        if spec.baseline:
            leave[str(own)] = str(kept)
        elif kept.is_dir():
            shutil.copytree(kept, own, symlinks=True)
    task = {
        "argv": argv,
        "sandbox": spec.sandbox,
        "source": str(spec.source),
        "control": str(spec.control),
        "scratch": "" if spec.sandbox == "off" else str(walls.scratch),
        "folders": [str(folder) for folder in sandbox.folders(spec.sandbox, walls)],
        "leave": leave,
        "log": str(spec.log),
        "log_limit": LOG_LIMIT,
        "timeout": spec.timeout,
        "silence": spec.silence,
        "limits": {"memory": spec.memory, "disk": spec.disk, "processes": spec.processes},
        "cookie": cookie,
        "environment": {**environment, **variables, **spec.environment},
    }
    (spec.folder / "spec.json").write_text(json.dumps(task), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", runner.__file__, str(spec.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _scratch(spec: TrialSpec, cookie: str) -> Path:
    """Beside the trial's other files, where it is mounted as /tmp.

    Landlock mounts nothing, and the path of a Unix socket in it must stay below 100 bytes.
    """
    if spec.sandbox == "landlock":
        place = tempfile.gettempdir()
        return Path(place if len(place) < 40 else "/tmp") / f"labtop-trial-{cookie[:12]}"
    return spec.folder.resolve() / "scratch"


def _environment(spec: TrialSpec, cookie: str) -> dict[str, str]:
    """By allow-list: what a person's shell holds, keys above all, is none of a training script's business."""
    passed = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    return {
        **passed,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Where it stands when it is ended by SIGABRT, or crashes in native code, is then in its log.
        "PYTHONFAULTHANDLER": "1",
        "LABTOP_DEVICE": spec.device,
        "LABTOP_SEED": str(spec.seed),
        "LABTOP_BUDGET": str(spec.budget),
        "LABTOP_CONTROL": str(spec.control),
        "LABTOP_TRIAL": cookie,
        **({"LABTOP_HANDOVER": str(spec.handover)} if spec.audited else {}),
        **spec.environment,
    }


def _end_strays(spec: TrialSpec) -> None:
    """A runner that was killed left its tree and its scratch folder behind; the cookie finds the tree."""
    task = _load(spec.folder / "spec.json")
    cookie = task.get("cookie")
    while cookie and (strays := runner.marked(cookie)):
        runner.send(strays, signal.SIGKILL)
    if scratch := task.get("scratch"):
        shutil.rmtree(scratch, ignore_errors=True)


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)
    except FileNotFoundError:
        return b""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _load(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}
