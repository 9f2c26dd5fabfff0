"""`labtop doctor`: what is missing on this machine, and what to do about it."""

from __future__ import annotations

import asyncio
import importlib.util
import locale
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from loop.agents import SPECS, Unavailable, UnknownAgent, make
from loop.config import Asking, Config, ConfigError, find_root, load
from loop.remote.daemon import Order
from loop.study import answers, socket_path, tags
from loop.trials import sandbox as walls
from tui import words

FREE_GB = 2.0
"""Less disk than this, in GiB, does not last a night."""

GIT = (2, 25)
"""The oldest git that has what the workspace needs."""


PATIENCE = 600
"""Seconds until a program counts as one that does not answer; from a cold disk torch takes minutes to load."""


FIRST_WORD = 60.0
"""Seconds that a model has to answer next to nothing."""


class Finding(NamedTuple):
    """`missing`: nothing works without it. `limited`: it works, but for what the sentence says."""

    grade: Literal["ok", "limited", "missing"]
    what: str
    advice: str = ""


def examine(folder: Path, agent: str | None = None) -> int:
    """Print every finding as it is made, and return the exit status: 1 where something is missing.

    `agent`: which one is tried, else that of the settings.
    """
    failed = False
    for check in (python, git, study, disk, torch, socket, terminal, partial(agents, spec=agent), sandbox):
        for finding in check(folder):
            print(f"{finding.grade:<8} {finding.what}", flush=True)
            if finding.advice:
                print(f"{'':<8} -> {finding.advice}", flush=True)
            failed |= finding.grade == "missing"
    print("\nnot ready: see what is missing above" if failed else "\nready")
    return 1 if failed else 0


UNIT = """\
# A study that outlives logout and reboot, as a systemd unit of your own. Once:
#   labtop doctor --unit --tag {tag} > ~/.config/systemd/user/labtop-{tag}.service
#   systemctl --user enable --now labtop-{tag} && loginctl enable-linger
# A key for the agent belongs into a file of mode 0600, named by EnvironmentFile= below.
[Unit]
Description=labtop, study {tag} of {root}

[Service]
WorkingDirectory={root}
ExecStart={python} -m loop.remote.daemon '{order}'
#EnvironmentFile=%h/.config/labtop.env
Restart=on-failure
RestartSec=10
# Trials have runners of their own: they go on while the engine is restarted, which then adopts them.
KillMode=process

[Install]
WantedBy=default.target"""


def unit(root: Path, tag: str) -> str:
    """The text of a systemd user unit that runs the study's engine."""
    order = msgspec.json.encode(Order(root=str(root), tag=tag)).decode()
    # Within a unit % and $ stand for something, and must be doubled to stand for themselves.
    places = {"root": str(root), "python": sys.executable, "order": order}
    return UNIT.format(tag=tag, **{name: text.replace("%", "%%").replace("$", "$$") for name, text in places.items()})


def python(_: Path) -> Iterator[Finding]:
    yield Finding("ok", f"Python {'.'.join(map(str, sys.version_info[:3]))}")


def git(_: Path) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("missing", "git", "install it: apt install git")
        return
    said = _run("git", "--version").split()[2]
    if tuple(int(part) for part in said.split(".")[:2]) < GIT:
        yield Finding("missing", f"git {said}", "2.25 or newer is wanted")
    else:
        yield Finding("ok", f"git {said}")


def study(folder: Path) -> Iterator[Finding]:
    try:
        root = find_root(folder)
        config = load(root)
    except ConfigError as error:
        yield Finding("missing", f"a study: {error}", "write the settings; README.md shows them")
        return
    if not _run("git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"):
        yield Finding("missing", f"a commit in {root}", "git init, git add, git commit: experiments stand on commits")
        return
    yield Finding("ok", f"study settings: {config.command!r} edits {', '.join(config.editable)}, {config.metric}")
    yield from _dirt(root, config)
    for tag in tags(root):
        if answers(socket_path(root, tag)):
            yield Finding("ok", f"an engine runs study {tag}")


def _dirt(root: Path, config: Config) -> Iterator[Finding]:
    files = (config.program, *config.editable, *config.frozen)
    changed = _run("git", "-C", str(root), "status", "--porcelain", "--", *files).splitlines()
    if changed:
        yield Finding(
            "limited",
            f"not committed: {', '.join(line.split()[-1] for line in changed)}",
            "a study starts from HEAD; commit what it should start from",
        )


def disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free / 2**30
    if free < FREE_GB:
        yield Finding("limited", f"{free:.1f} GiB of disk free", f"a night wants more than {FREE_GB:g} GiB")
    else:
        yield Finding("ok", f"{free:.0f} GiB of disk free")


def torch(_: Path) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("limited", "torch is not installed", "the bundled trainer wants it: make run sets it up")
        return
    # In a process of its own: importing it takes seconds and can abort where its libraries do not fit.
    code = (
        "import torch; print(torch.__version__); print(torch.cuda.get_device_name() if torch.cuda.is_available() else "
        "'Apple GPU' if torch.backends.mps.is_available() else '')"
    )
    version, *device = _run(sys.executable, "-c", code).splitlines() or [""]
    if not version:
        yield Finding("missing", "torch is installed but does not load", "remove .venv and set up again: make run")
        return
    yield Finding("ok", f"torch {version}")
    if device:
        yield Finding("ok", f"trains on {device[0]}")
        return
    yield Finding("limited", f"no GPU that torch can use; trials train on {os.cpu_count()} CPU cores, one thread each")
    if shutil.which("nvidia-smi"):
        yield Finding(
            "limited",
            "an NVIDIA driver is here, but this torch build does not use it",
            "install the CUDA build that the driver carries: pytorch.org/get-started",
        )


def socket(folder: Path) -> Iterator[Finding]:
    try:
        path = socket_path(find_root(folder), "x").parent
    except ConfigError:
        return
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owned = path.stat().st_uid == os.getuid() and os.access(path, os.W_OK)
    except OSError:
        owned = False
    if owned:
        yield Finding("ok", f"the engine's socket goes to {path}")
    else:
        yield Finding(
            "missing", f"{path} is not writable, or another user's", "set XDG_RUNTIME_DIR to a folder of yours"
        )


def terminal(_: Path) -> Iterator[Finding]:
    if not sys.stdout.isatty():
        yield Finding("limited", "no terminal here: labtop prints lines instead of the cockpit")
        return
    if "UTF-8" not in locale.getpreferredencoding(False).upper():
        yield Finding("limited", "the locale is not UTF-8", "export LANG=C.UTF-8")
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield Finding("limited", "TERM is not set", "export TERM=xterm-256color")
    size = shutil.get_terminal_size()
    if size.columns < 80 or size.lines < 24:
        yield Finding("limited", f"the terminal has {size.columns}x{size.lines} cells", "80x24 is the least that fits")
    else:
        yield Finding("ok", f"a terminal of {size.columns}x{size.lines} cells")


def agents(folder: Path, spec: str | None) -> Iterator[Finding]:
    """Try the agent that `spec`, else the settings, name: the model is asked for a few words."""
    try:
        settings = load(find_root(folder))
        spec, asking = spec or settings.agent, settings.asking
    except ConfigError:
        spec, asking = spec or "search", Asking()
    if spec == "search":
        yield Finding("ok", "agent search: offline, no key needed")
        yield Finding("ok", f"others: {', '.join(SPECS[1:])}; `labtop doctor --agent SPEC` tries one")
        return
    try:
        agent = make(spec, asking=replace(asking, attempts=1, first_word=min(asking.first_word, FIRST_WORD)))
        said = asyncio.run(agent.probe())
    except (UnknownAgent, Unavailable) as error:
        wrong, _, advice = words.one_line(str(error)).partition("; ")
        yield Finding("missing", f"agent {spec}: {wrong}", advice)
        return
    for line in said:
        yield Finding("limited" if re.search(r" not? ", line) else "ok", f"agent {spec}: {words.one_line(line)}")


def sandbox(folder: Path) -> Iterator[Finding]:
    try:
        wish = load(find_root(folder)).sandbox
    except ConfigError:
        wish = "auto"
    try:
        kind = walls.choose(wish)
    except walls.SandboxError as error:
        yield Finding("missing", "a sandbox for training scripts", str(error))
        return
    match kind:
        case "bubblewrap":
            yield Finding("ok", f"sandbox bubblewrap: {walls.TELLS[kind]}")
        case "landlock":
            yield Finding("limited", f"sandbox landlock: {walls.TELLS[kind]}", "for more: apt install bubblewrap")
        case "off":
            yield Finding("limited", f"sandbox off: {walls.TELLS[kind]}", "let only agents you trust propose changes")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
