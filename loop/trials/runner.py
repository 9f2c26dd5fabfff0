"""The small process that each trial has of its own: it holds the time-out, ends the whole tree, and writes the result.

Standard library only, and started with `python -I -S`: it must outlive the engine, and start in a few milliseconds.
Everything it knows is in its folder: `spec.json` in; `started.json` and `exit.json` out; `control/pause` and `kill` are
what the engine asks for while it runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

POLL = 0.05
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
ACKNOWLEDGE = 10.0
"""Seconds a script with a clock of ours has to stop at a step, before it is frozen from outside."""
PR_SET_CHILD_SUBREAPER = 36


def write_json(path: str, value: dict[str, Any]) -> None:
    """Durable and whole: a reader, or the next boot, sees all of it or none."""
    part = path + ".part"
    with open(part, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def start_time(pid: int) -> int:
    """The kernel's start time of a process: with the pid it names the process for good. 0 where there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def _scan(cookie: str) -> tuple[dict[int, int], set[int]]:
    """The parent of each living process, and the pids that carry the trial's cookie in their environment."""
    mark = f"LABTOP_TRIAL={cookie}".encode()
    parents: dict[int, int] = {}
    marked: set[int] = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            if fields[0] in "ZX":
                continue
            parents[pid] = int(fields[1])
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    marked.add(pid)
        except OSError:
            continue
    return parents, marked


def marked(cookie: str) -> set[int]:
    """The pids that carry the trial's cookie."""
    return _scan(cookie)[1]


def tree(cookie: str) -> set[int]:
    """The pids of the trial: our descendants, orphans handed to us among them, and all that carry its cookie."""
    parents, found = _scan(cookie)
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found or parent == os.getpid()} - found
        found |= more
        grew = bool(more)
    return found - {os.getpid()}


def send(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_tree(child: subprocess.Popen[bytes], cookie: str) -> None:
    """SIGTERM, then SIGKILL until nothing is left, however it forks and whatever session it fled to."""
    send({child.pid} | tree(cookie), signal.SIGCONT)
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGTERM)
    send(tree(cookie), signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and (child.poll() is None or tree(cookie)):
        time.sleep(0.02)
    sweep(child, cookie)


def sweep(child: subprocess.Popen[bytes], cookie: str) -> None:
    while True:
        left = tree(cookie)
        if child.poll() is None:
            left.add(child.pid)
        if not left:
            break
        send(left, signal.SIGKILL)
        time.sleep(0.01)
        child.poll()
    reap()


class Pause:
    """Carries out the engine's wish to pause: by the script's own clock where it has one, else by freezing the tree."""

    def __init__(self, control: str, child: subprocess.Popen[bytes], cookie: str) -> None:
        self.wish = os.path.join(control, "pause")
        self.clock = os.path.join(control, "clock.json")
        self.paused = os.path.join(control, "paused")
        self.frozen = os.path.join(control, "frozen")
        self.child, self.cookie = child, cookie
        self.since: float | None = None
        self.stopped = False

    def poll(self) -> bool:
        """True while the trial stands still."""
        if not os.path.exists(self.wish):
            self.since = None
            if self.stopped:
                self.stopped = False
                os.unlink(self.frozen)
                send({self.child.pid} | tree(self.cookie), signal.SIGCONT)
            return False
        if self.stopped or os.path.exists(self.paused):
            return True
        self.since = self.since or time.monotonic()
        patience = ACKNOWLEDGE if os.path.exists(self.clock) else 1.0
        if time.monotonic() - self.since > patience:
            self.stopped = True
            send({self.child.pid} | tree(self.cookie), signal.SIGSTOP)
            open(self.frozen, "w").close()
        return self.stopped


def run(folder: str) -> None:
    with open(os.path.join(folder, "spec.json")) as file:
        spec = json.load(file)
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("this trial runs already")
    if os.path.exists(os.path.join(folder, "started.json")):
        sys.exit("this trial was run before")
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wanted: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: wanted.append("killed"))
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    begun = time.monotonic()
    cookie = spec["cookie"]
    result: dict[str, Any] = {"outcome": "exited", "reason": "", "exit_code": None}
    try:
        child = subprocess.Popen(
            spec["argv"], cwd=spec["source"], env=spec["environment"], stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        result.update(outcome="unstartable", reason=f"{spec['argv'][0]}: {error.strerror}", wall_seconds=0.0)
        write_json(os.path.join(folder, "started.json"), {"runner": os.getpid(), "start_time": start_time(os.getpid())})
        write_json(os.path.join(folder, "exit.json"), result)
        return
    write_json(
        os.path.join(folder, "started.json"),
        {"runner": os.getpid(), "start_time": start_time(os.getpid()), "child": child.pid, "time": time.time()},
    )
    pause, still, last = Pause(os.path.join(folder, "control"), child, cookie), 0.0, begun
    while child.poll() is None:
        readable, _, _ = select.select([bell], [], [], POLL)
        if readable:
            os.read(bell, 4096)
        now = time.monotonic()
        if pause.poll():
            still += now - last
        last = now
        if wanted or os.path.exists(os.path.join(folder, "kill")):
            result.update(outcome="killed")
        elif now - begun - still > spec["timeout"]:
            result.update(outcome="timeout", reason=f"not done after {spec['timeout']:.0f} s")
        elif os.fstat(log).st_size > spec["log_limit"]:
            result.update(outcome="overflow", reason=f"it printed more than {spec['log_limit'] >> 20} MiB")
        else:
            continue
        if child.poll() is None:
            end_tree(child, cookie)
        break
    sweep(child, cookie)
    result.update(exit_code=child.returncode, wall_seconds=time.monotonic() - begun, paused_seconds=still)
    write_json(os.path.join(folder, "exit.json"), result)


if __name__ == "__main__":
    run(sys.argv[1])
