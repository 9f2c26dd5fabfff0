"""The small process that each trial has of its own: it holds the limits, ends the whole tree, and writes the result.

Standard library only, and started with `python -I -S`: it must outlive the engine, and start in a few milliseconds.
Everything it knows is in its folder: `spec.json` in; `started.json` and `exit.json` out; `pause` and `kill` are what
the engine asks for while it runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from typing import Any

POLL = 0.05
LOOK = 0.5
"""Seconds between two looks at what the trial uses."""
LOOKS_A_COUNT = 8
"""Looks after which files are counted once: in a large repository that takes time."""
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
LEAVING = 0.3
"""Seconds that helpers have to end after the command that they belong to."""
ACKNOWLEDGE = 10.0
"""Seconds a script with a clock of ours has to stop at a step, before it is frozen from outside."""
IDLE = 0.05
"""A tree that uses less than this share of one core, and prints nothing, does nothing."""
FILES = 100_000
"""Files that a trial may leave in its folders."""
PIECE = 1 << 16
PR_SET_CHILD_SUBREAPER = 36
REPORT = 100
"""The descriptor through which the sandbox's last step reports; see confine.py."""


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
    """The kernel's start time of a living process: with the pid it names it for good. 0 where there is none."""
    try:
        with open(f"/proc/{pid}/stat") as line:
            fields = line.read().rpartition(")")[2].split()
        # One that has ended and was not reaped keeps its entry.
        return 0 if fields[0] in "ZX" else int(fields[19])
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
            with open(f"/proc/{pid}/stat") as line:
                fields = line.read().rpartition(")")[2].split()
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


def reap(child: int) -> None:
    """Take the exit of whatever was handed to us; the command's own is Popen's to take."""
    for pid in _children(os.getpid()):
        if pid != child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as children:
                found += map(int, children.read().split())
    return found


class Output:
    """The trial's output on its way from a pipe to the log, of which no more than `limit` bytes are taken."""

    def __init__(self, path: str, limit: int) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.end, self.inlet = os.pipe()
        os.set_blocking(self.end, False)
        self.limit = self._left = limit
        self.overflown = False
        self.trouble = ""
        """Why the log takes no more, such as a full disk."""
        self.seen = 0
        """Bytes that came so far."""
        self.open = True

    def pump(self) -> bool:
        """Take what has come, at most a few pieces. False: nothing had."""
        for turn in range(16):
            try:
                data = os.read(self.end, PIECE)
            except BlockingIOError:
                return turn > 0
            if not data:
                self.open = False
                return False
            self.seen += len(data)
            self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        self.overflown = self.overflown or len(data) > self._left
        data = data[: self._left]
        self._left -= len(data)
        while data and not self.trouble:
            try:
                data = data[os.write(self._log, data) :]
            except OSError as error:
                self.trouble = os.strerror(error.errno or 0)

    def failure(self) -> tuple[str, str] | None:
        """Outcome and reason where the log did not take everything."""
        if self.overflown:
            return "excess", f"it printed more than {self.limit >> 20} MiB"
        return ("unwritable", self.trouble) if self.trouble else None

    def finish(self) -> None:
        """Everything of the trial has ended: take the rest."""
        while self.open and self.pump():
            pass
        os.close(self._log)


class Use:
    """What the trial's processes use, looked at twice a second, and what of it is too much."""

    def __init__(self, spec: dict[str, Any], output: Output) -> None:
        self.limits: dict[str, int] = spec["limits"]
        self.walled: bool = spec["sandbox"] == "bubblewrap"
        self.silence: float = spec["silence"]
        self.folders = [spec["source"], spec["control"], *([spec["scratch"]] if spec["scratch"] else [])]
        self.output = output
        self.looks = 0
        self.since, self.cpu, self.seen = time.monotonic(), 0.0, 0
        self.used: dict[int, float] = {}
        """CPU seconds of each process that was ever seen."""

    def cpu_seconds(self) -> float:
        """CPU time of all its processes, when they have ended."""
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        # A process that ignores the end of its children has theirs counted nowhere.
        return max(reaped.ru_utime + reaped.ru_stime, sum(self.used.values()))

    def excess(self, now: float, *, still: bool) -> tuple[str, str] | None:
        """Outcome and reason where a limit is passed; `still`: it is paused, and then silence means nothing."""
        pids = self._family()
        if len(pids) > self.limits["processes"]:
            return "excess", f"it started more than {self.limits['processes']} processes"
        memory = self.limits["memory"]
        # Under bubblewrap /dev/shm is the trial's own, and full of what nobody need have mapped.
        shared = max(map(_shared_files, pids), default=0) if self.walled else 0
        in_memory, on_disk = _nameless(pids)
        shared += in_memory
        if shared + sum(map(_resident, pids)) > memory and shared + sum(map(_proportional, pids)) > memory:
            return "excess", f"it took more than {_gib(memory)} of memory"
        self.looks += 1
        if self.looks % LOOKS_A_COUNT == 0 and _too_large(self.folders, self.limits["disk"] - on_disk):
            return "excess", f"it wrote more than {_gib(self.limits['disk'])} or {FILES} files"
        now_used = {pid: _cpu_seconds(pid) for pid in pids}
        self.used |= {pid: max(seconds, self.used.get(pid, 0.0)) for pid, seconds in now_used.items()}
        cpu = sum(now_used.values())
        if still or self.output.seen != self.seen:
            self.since, self.cpu, self.seen = now, cpu, self.output.seen
        elif now - self.since > self.silence:
            if cpu - self.cpu < IDLE * self.silence:
                return "hang", f"it printed nothing and did nothing for {self.silence:.0f} s"
            self.since, self.cpu = now, cpu
        return None

    def _family(self) -> list[int]:
        """The trial's processes by parenthood: cheap, and all there are while we are their subreaper."""
        found: list[int] = []
        waiting = _children(os.getpid())
        while waiting and len(found) <= self.limits["processes"]:
            found.append(waiting.pop())
            waiting += _children(found[-1])
        return found


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _resident(pid: int) -> int:
    """Bytes of memory."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _proportional(pid: int) -> int:
    """The same, what is shared counted once among those that share it. It takes longer to find out."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    return _resident(pid)


def _shared_files(pid: int) -> int:
    """Bytes in the /dev of the process's own namespace, which is in memory."""
    with contextlib.suppress(OSError):
        path = f"/proc/{pid}/root/dev/shm"
        if os.stat(path).st_dev == os.stat("/dev/shm").st_dev:
            return 0  # Bubblewrap's own process, outside: it sees everybody's.
        place = os.statvfs(path)
        return (place.f_blocks - place.f_bfree) * place.f_frsize
    return 0


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as line:
        fields = line.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _nameless(pids: list[int]) -> tuple[int, int]:
    """Bytes, in memory and on disk, of files without a name, which live on as long as somebody has them open."""
    sizes: dict[tuple[int, int], tuple[int, bool]] = {}
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    status, path = descriptor.stat(), os.readlink(descriptor.path)
                    # What lies in /dev/shm is counted there.
                    if stat.S_ISREG(status.st_mode) and not status.st_nlink and not path.startswith("/dev/shm/"):
                        in_memory = path.startswith("/memfd:")
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512, in_memory
    memory = sum(size for size, in_memory in sizes.values() if in_memory)
    return memory, sum(size for size, _ in sizes.values()) - memory


def _too_large(folders: list[str], limit: int) -> bool:
    size = files = 0
    waiting = list(folders)
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                if size > limit or files > FILES:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return False


class Trial:
    """The command and all that it started."""

    def __init__(self, child: subprocess.Popen[bytes], spec: dict[str, Any], output: Output) -> None:
        self.child, self.cookie, self.output = child, spec["cookie"], output
        self.walled = spec["sandbox"] == "bubblewrap"

    def members(self) -> set[int]:
        found = tree(self.cookie)
        return found | {self.child.pid} if self.child.poll() is None else found

    def within(self) -> set[int]:
        """All but bubblewrap's own process: its end would be that of all within, at once and without grace."""
        return self.members() - ({self.child.pid} if self.walled else set())

    def end(self) -> None:
        """SIGTERM, then SIGKILL until nothing is left, however it forks and whatever session it fled to."""
        send(self.members(), signal.SIGCONT)
        send(self.within(), signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and self.members():
            self.output.pump()
            time.sleep(0.02)
        self.sweep()

    def settle(self) -> int:
        """The command has ended: how many it left running, those not counted that are on their way out."""
        deadline = time.monotonic() + LEAVING
        while (left := self.members()) and time.monotonic() < deadline:
            self.output.pump()
            time.sleep(0.02)
        return len(left)

    def sweep(self) -> None:
        """SIGKILL until nothing is left."""
        while left := self.members():
            # The namespace first: its first process takes all others with it.
            send({self.child.pid} if self.child.poll() is None else set(), signal.SIGKILL)
            send(left, signal.SIGKILL)
            self.output.pump()
            time.sleep(0.01)
            reap(self.child.pid)
        reap(self.child.pid)

    def show_where(self) -> None:
        """Make every Python process print where it is, on its way out: what a person looks for after a hang."""
        send(self.within(), signal.SIGABRT)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and self.child.poll() is None:
            self.output.pump()
            time.sleep(0.02)


class Pause:
    """Carries out the engine's wish to pause: by the script's own clock where it has one, else by freezing the tree."""

    def __init__(self, folder: str, trial: Trial) -> None:
        self.wish = os.path.join(folder, "pause")
        self.frozen = os.path.join(folder, "frozen")
        # The script writes here too, so that nothing found here decides anything but how it is stopped.
        self.told = os.path.join(folder, "control", "pause")
        self.clock = os.path.join(folder, "control", "clock.json")
        self.paused = os.path.join(folder, "control", "paused")
        self.trial = trial
        self.since: float | None = None
        self.stopped = False

    def poll(self) -> bool:
        """True while the trial stands still."""
        if not os.path.exists(self.wish):
            if self.since is not None:
                self.since = None
                with contextlib.suppress(OSError):
                    os.unlink(self.told)
            if self.stopped:
                self.stopped = False
                os.unlink(self.frozen)
                send(self.trial.members(), signal.SIGCONT)
            return False
        if self.since is None:
            self.since = time.monotonic()
            with contextlib.suppress(OSError):
                os.close(os.open(self.told, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
        if self.stopped or os.path.exists(self.paused):
            return True
        patience = ACKNOWLEDGE if os.path.exists(self.clock) else 1.0
        if time.monotonic() - self.since > patience:
            self.stopped = True
            send(self.trial.members(), signal.SIGSTOP)
            open(self.frozen, "w").close()
        return self.stopped


def read_report(report: int) -> dict[str, Any]:
    """What the sandbox's last step said of the command; nothing where it said nothing."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(report, PIECE):
            data += piece
    try:
        said = json.loads(data) if data else {}
    except ValueError:
        return {}
    # Whoever may have written it: anything else than this would end us, or be journalled.
    fits = isinstance(said, dict) and isinstance(said.get("exit_code"), int) and isinstance(said.get("left"), list)
    return said if fits else {}


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

    output = Output(spec["log"], spec["log_limit"])
    for name in spec["folders"]:
        os.makedirs(name, mode=0o700, exist_ok=True)
    report, reporting = os.pipe()
    os.set_blocking(report, False)
    os.dup2(reporting, REPORT)
    os.close(reporting)
    begun = time.monotonic()
    me = {"runner": os.getpid(), "start_time": start_time(os.getpid())}
    result: dict[str, Any] = {"outcome": "exited", "reason": "", "exit_code": None}
    passed = (REPORT,) if spec["sandbox"] == "bubblewrap" else ()
    try:
        child = subprocess.Popen(
            spec["argv"], cwd=spec["source"], env=spec["environment"], stdin=subprocess.DEVNULL,
            stdout=output.inlet, stderr=output.inlet, start_new_session=True, pass_fds=passed,
        )  # fmt: skip
    except OSError as error:
        result.update(outcome="unstartable", reason=f"{spec['argv'][0]}: {error.strerror}", wall_seconds=0.0)
        write_json(os.path.join(folder, "started.json"), me)
        write_json(os.path.join(folder, "exit.json"), result)
        return
    os.close(output.inlet)
    os.close(REPORT)
    write_json(os.path.join(folder, "started.json"), {**me, "child": child.pid, "time": time.time()})
    trial = Trial(child, spec, output)
    pause, use = Pause(folder, trial), Use(spec, output)
    still, last, looked = 0.0, begun, begun
    while child.poll() is None:
        readable, _, _ = select.select([bell, output.end] if output.open else [bell], [], [], POLL)
        if bell in readable:
            os.read(bell, 4096)
        output.pump()
        now = time.monotonic()
        if now - last < POLL and not output.overflown:
            continue
        paused = pause.poll()
        if paused:
            still += now - last
        last = now
        if wanted or os.path.exists(os.path.join(folder, "kill")):
            result.update(outcome="killed")
        elif now - begun - still > spec["timeout"]:
            result.update(outcome="timeout", reason=f"not done after {spec['timeout']:.0f} s")
        elif failure := output.failure():
            result.update(outcome=failure[0], reason=failure[1])
        elif now - looked > LOOK and (excess := use.excess(now, still=paused)):
            result.update(outcome=excess[0], reason=excess[1])
            if excess[0] == "hang":
                trial.show_where()
        else:
            if now - looked > LOOK:
                looked = now
            continue
        if child.poll() is None:
            trial.end()
        break
    left = trial.settle() if result["outcome"] == "exited" else 0
    trial.sweep()
    output.finish()
    said = read_report(report) if trial.walled else {}
    if result["outcome"] == "exited" and (failure := output.failure()):
        result.update(outcome=failure[0], reason=failure[1])
    result.update(
        exit_code=said.get("exit_code", child.returncode),
        wall_seconds=time.monotonic() - begun,
        cpu_seconds=use.cpu_seconds(),
        paused_seconds=still,
        left=len(said["left"]) if "left" in said else left,
    )
    if result["outcome"] == "exited" and result["exit_code"] == 0:
        for made, place in spec["leave"].items():
            if os.path.isdir(made) and not os.path.exists(place):
                with contextlib.suppress(OSError):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                    shutil.move(made, place)
    if spec["scratch"]:
        shutil.rmtree(spec["scratch"], ignore_errors=True)
    write_json(os.path.join(folder, "exit.json"), result)


if __name__ == "__main__":
    run(sys.argv[1])
