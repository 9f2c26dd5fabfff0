"""What a trial may see and touch, and the command that holds it to that: by bubblewrap, or by Landlock with seccomp.

A training script was written by a model and is hostile until proven otherwise. It sees the machine's programs and data
read-only; homes, the study's repository, run-time folders and /tmp are hidden, but for what is named; it writes into
its own copy of the source and a scratch folder, both of which go when it ends; and it has no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from loop.events import SandboxKind
from loop.trials import confine

Wish = Literal["auto", "bubblewrap", "landlock", "off"]

DEVICES = ("nvidia*", "kfd", "dri", "dxg")
"""Accelerators' nodes in /dev."""
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm")
PASSING = ("/tmp", "/var/tmp", "/run", "/home", "/root")
"""Hidden in every case: what is other people's, or other programs'."""
RESOLVER = Path("/etc/resolv.conf")
"""Which name servers to ask; often a link into /run."""
PASSING_SIZE = 2**30
"""Bytes of memory that files of a sealed process may take."""
THREADS = 4096
"""RLIMIT_NPROC, which counts threads, and by user where no user namespace is there to count in."""

TELLS = {
    "bubblewrap": "files, processes, network and environment of a trial are walled off",
    "landlock": "files, network and signals of a trial are walled off; not Unix sockets, processes' names, chmod",
    "off": "trials run as you, without a sandbox",
}
"""What each kind means, for a person."""


class SandboxError(Exception):
    """The sandbox that is wanted does not work here; the message says what to do."""


class Walls(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial may do. Everything else of the file system is readable, if the user may read it, and no more."""

    hidden: tuple[Path, ...]
    """Beside `PASSING` and the user's home: the repository, and where sockets lie."""
    readable: tuple[Path, ...]
    """Shown although they lie in something hidden."""
    masked: tuple[Path, ...] = ()
    """Not shown although they lie in something shown."""
    source: Path
    """The working directory; writable."""
    control: Path
    """Where the script is told of a pause, and answers; writable."""
    scratch: Path
    """Writable; where the trial finds its /tmp, and under bubblewrap its home."""
    sealed: bool = False
    """Nothing is writable, so that nothing outlives the process: under bubblewrap /tmp and home are its own."""
    network: bool
    disk: int
    """Bytes of the largest file it may write."""


def choose(wish: Wish) -> SandboxKind:
    """The best kind that works here and is wished for. Raises: SandboxError."""
    if wish == "off":
        return "off"
    troubles = []
    for kind in ("bubblewrap", "landlock") if wish == "auto" else (wish,):
        trouble = _trouble(kind)
        if trouble is None:
            return kind
        troubles.append(f"{kind}: {trouble}")
    raise SandboxError(
        f"no sandbox for training scripts works here ({'; '.join(troubles)}). Install bubblewrap (apt install "
        'bubblewrap), or, where you trust who writes the scripts, set sandbox = "off" in the settings'
    )


def _trouble(kind: Literal["bubblewrap", "landlock"]) -> str | None:
    """Why `kind` does not work here, found by trying it; None: it does."""
    if kind == "landlock":
        command = [*_confined({}, landlock={"read": ["/"], "list": [], "write": []}), "true"]
    elif (program := shutil.which("bwrap")) is None:
        return "it is not installed"
    else:
        command = [program, *_ALONE, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--as-pid-1", "true"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it fails"])[-1]


_ALONE = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
)


def wrap(kind: SandboxKind, walls: Walls, command: list[str]) -> tuple[list[str], dict[str, str]]:
    """What runs `command` inside `walls`, and the variables that go with it. The command is a program's full path."""
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": walls.disk, "RLIMIT_NPROC": THREADS}
    hidden = _hidden(walls)
    readable: list[Path] = []
    for path in sorted(_readable(walls, command[0], hidden), key=lambda path: len(path.parts)):
        # A link within what is shown already cannot be mounted on, and need not be.
        if not _within(path, readable):
            readable.append(path)
    temporary = walls.scratch / "tmp"
    # What lies in something hidden that nothing brings back need not be masked.
    masked = [path for path in _there(walls.masked) if _within(path, readable) or not _within(path, hidden)]
    match kind:
        case "off":
            return command, {}
        case "landlock":
            parts = [
                *_shown(Path("/"), [*hidden, *masked]),
                *(part for path in readable for part in _but(path, masked)),
            ]
            # Python lists the folders that it imports from, whatever of them it may read.
            listed = {parent for path in masked for parent in path.parents if parent != Path("/")}
            # Processes of the whole user count here, so this limit would hit the person's own.
            del limits["RLIMIT_NPROC"]
            own = [str(path) for path in (walls.source, walls.control, walls.scratch)]
            devices = [device for device in PLAIN_DEVICES if not (walls.sealed and device == "/dev/shm")]
            rules = {
                "read": [*map(str, parts), *(own if walls.sealed else ())],
                "list": sorted(map(str, listed)),
                "write": [*devices, *_devices(), *(() if walls.sealed else own)],
            }
            return [*_confined(limits, landlock=rules, network=walls.network), *command], _caches(temporary)
    arguments = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for device in _devices():
        arguments += ["--dev-bind-try", device, device]
    mine = {_home(): walls.scratch / "home", Path("/tmp").resolve(): temporary}
    empty: list[Path] = []
    for path in hidden:
        if path in mine:
            passing = ["--size", str(PASSING_SIZE), "--tmpfs", str(path)]
            arguments += passing if walls.sealed else ["--bind", str(mine[path]), str(path)]
        elif not _within(path, [*empty, *mine]):
            arguments += ["--tmpfs", str(path)]
            empty.append(path)
    for path in readable:
        arguments += ["--ro-bind-try", str(path), str(path)]
    for path in masked:
        arguments += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
    for path in (walls.source, walls.control):
        arguments += ["--ro-bind" if walls.sealed else "--bind", str(path), str(path)]
    for path in empty:
        # What is mounted within stays as it is; the empty folder around it takes no files.
        arguments += ["--remount-ro", str(path)]
    alone = (*_ALONE, *(() if walls.network else ("--unshare-net",)))
    inside = ["--chdir", str(walls.source), "--as-pid-1", "--", *_confined(limits), *command]
    return [shutil.which("bwrap") or "bwrap", *alone, *arguments, *inside], _caches(Path("/tmp"))


def folders(kind: SandboxKind, walls: Walls) -> list[Path]:
    """What must exist before the trial starts."""
    return [] if kind == "off" else [walls.scratch / "tmp", walls.scratch / "home"]


def _confined(
    limits: dict[str, int], *, landlock: dict[str, list[str]] | None = None, network: bool = False
) -> list[str]:
    task = {"limits": limits, "network": network, **({"landlock": landlock} if landlock else {})}
    return [sys.executable, "-I", "-S", confine.__file__, json.dumps(task)]


CACHES = {"inductor": "TORCHINDUCTOR_CACHE_DIR", "triton": "TRITON_CACHE_DIR"}
"""Compilers' caches: folders below a trial's temporary one, and the variables that name them.

In a place that all share, one trial could plant something for the next. Each starts from a copy of what the baseline,
the person's own script, has left, so that what did not change is not compiled again.
"""


def _caches(temporary: Path) -> dict[str, str]:
    return {"TMPDIR": str(temporary), **{variable: str(temporary / name) for name, variable in CACHES.items()}}


def _home() -> Path:
    return Path.home().resolve()


def _hidden(walls: Walls) -> list[Path]:
    """Outermost first; resolved, since a link's target is what is mounted."""
    places = [*map(Path, PASSING), _home(), *walls.hidden]
    return [path for path in _there(places) if path.is_dir() and path != Path("/")]


def _there(places: Iterable[Path]) -> list[Path]:
    """Which of them exist, outermost first, without links."""
    return sorted({path.resolve() for path in places if path.exists()}, key=lambda path: (len(path.parts), path))


def _readable(walls: Walls, program: str, hidden: list[Path]) -> Iterator[Path]:
    """What of the hidden is shown: the interpreters' own folders, this package's last step, and what is named."""
    used = [Path(prefix) for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
    for path in (Path(program), Path(program).resolve(), Path(sys.executable).resolve()):
        used += [path, path.parent.parent] if path.parent.name == "bin" else [path]
    for path in (*used, Path(confine.__file__)):
        place = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
        # A program in ~/bin must not bring the home with it.
        if _within(place, hidden) and not any(other.is_relative_to(place) for other in hidden):
            yield place
    named = (*walls.readable, *((RESOLVER,) if walls.network else ()))
    yield from (path.resolve() for path in named if path.exists() and _within(path.resolve(), hidden))


def _within(path: Path, places: Iterable[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _but(path: Path, masked: list[Path]) -> Iterator[Path]:
    """`path`, or its largest parts that hold nothing masked."""
    if path in masked:
        return
    if any(other.is_relative_to(path) for other in masked):
        yield from _shown(path, masked)
    else:
        yield path


def _shown(folder: Path, hidden: list[Path]) -> Iterator[Path]:
    """The largest parts of `folder` that hold nothing hidden."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or entry in hidden:
            continue
        if any(path.is_relative_to(entry) for path in hidden):
            yield from _shown(entry, hidden)
        elif entry != Path("/dev"):
            yield entry


def _devices() -> list[str]:
    found = (path for pattern in DEVICES for path in Path("/dev").glob(pattern))
    return sorted(str(path) for path in found if os.access(path, os.R_OK))
