"""The settings of a study: [tool.labtop] of its pyproject.toml, or labtop.toml, which wins where both are."""

from __future__ import annotations

import difflib
import os
import re
import sysconfig
import tomllib
from collections.abc import Iterable
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


class ConfigError(ValueError):
    """A setting is wrong or missing: file, line, name, and what is expected."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one trial may use, all its processes together; past that it is ended. Sizes are in GiB."""

    memory_gb: float | None = None
    """Of the host, not of a device. None: nine tenths of what the machine has."""
    disk_gb: float = 16.0
    processes: int = 512


class Asking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent is asked. Times are in seconds, sizes in tokens."""

    briefing: int = 32_000
    """What an agent is told comes to no more; a model with a small context wants less."""
    protocol: Literal["auto", "responses", "chat"] = "auto"
    """Of an OpenAI-compatible endpoint. auto: Responses at OpenAI, elsewhere Chat Completions where there are any."""
    effort: str = ""
    """How hard a reasoning model thinks, such as "high"; "": as it likes."""
    prices: dict[str, float] = {}
    """Of a million tokens: `input`, `cached` (input that the server had cached) and `output`. Without them a cost is
    known only where the server tells it."""
    first_word: float = 300.0
    """Until the first word of an answer; long, since a model that hides its reasoning is silent while it thinks."""
    silence: float = 60.0
    """Between two words of it."""
    turn: float = 1800.0
    """A whole turn, all requests of it."""
    turn_tokens: int = 1_000_000
    """Of one turn at most; then it is ended."""
    attempts: int = 8
    """Of one request, where the endpoint is in trouble."""
    backoff: float = 2.0
    """Before the second of them; it doubles up to `longest_wait`."""
    longest_wait: float = 60.0
    looks: int = 12
    """Files and past experiments that an agent may read in a turn."""
    mends: int = 3
    """How often what cannot be used goes back to the agent in a turn."""


PRICED = ("input", "cached", "output")


class Caps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a study may come to in all; then it ends, after the experiment under way. None: without end."""

    experiments: int | None = None
    hours: float | None = None
    """In which an engine ran and was not paused."""
    tokens: int | None = None
    """Of agents, in and out."""
    cost: float | None = None
    """Of agents, in the unit of the prices."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings as written. Times are in seconds, margins in the metric's unit."""

    command: str
    editable: tuple[str, ...]
    program: str = "program.md"
    frozen: tuple[str, ...] = ()
    metric: str = "val_bpb"
    direction: Literal["minimize", "maximize"] = "minimize"
    budget: float | None = None
    """Of the trial's own clock. None: 20 s of CPU time on a CPU, 300 s on an accelerator."""
    timeout: float | None = None
    """Wall time of a whole trial, pauses not counted. None: three budgets and ten minutes: what hangs is found by its
    silence, and on a machine that others keep busy a second of CPU time may take ten."""
    policy: Literal["greedy", "margin", "confirm"] = "confirm"
    """What is kept: whatever was better once; better once by the margin; or what further seeds confirm."""
    margin: float = 0.0
    """By how much a change must be better to be kept."""
    false_keep: float = 0.05
    """Of what `confirm` keeps, the share that may be luck."""
    replicates: int = 4
    """Trials of the baseline, at most: what they differ by is the noise that everything is held against."""
    confirmations: int = 8
    """Trials of one experiment, at most."""
    sentinel: int = 20
    """After so many experiments without a trial of the incumbent it is measured again, lest the machine has changed.
    0: never."""
    simplify: bool = False
    """Whether what is equal within noise is kept where it has fewer lines or takes less memory."""
    at_most: dict[str, float] = {}
    """Numbers of the summary block, `changed_lines` or `wall_seconds`, and what each may come to."""
    repeats: Literal["refuse", "rerun"] = "refuse"
    """What becomes of a proposal that was tried before."""
    audit: str = ""
    """A command that measures what a trial hands over, from the files as the study found them. "": the script's own
    word is taken for it."""
    approve: bool = False
    """Whether a study begins in approve mode: no proposal trains before a person has looked at it."""
    breakpoints: tuple[str, ...] = ()
    """Conditions at which a study pauses, as `labtop break` takes them; those that it begins with."""
    seed: int = 1337
    """Of each experiment's first trial; further ones count on from there."""
    agent: str = "search"
    max_failures: int = 5
    """After so many proposals in a row that came to nothing the study waits for a person."""
    asking: Asking = Asking()
    repairs: int = 1
    """How often the agent may mend what crashed, within the same experiment."""
    caps: Caps = Caps()
    environment: dict[str, str] = {}
    """Variables for the training command, beside the few it gets anyway."""
    silence: float = 300.0
    """A trial that prints nothing and does nothing for so many seconds hangs, and is ended."""
    limits: Limits = Limits()
    sandbox: Literal["auto", "bubblewrap", "landlock", "off"] = "auto"
    """What walls trials off: the best that works on this machine, a named one, or nothing."""
    readable: tuple[str, ...] = ()
    """Files and folders that trials see although they lie in a home, the repository or a temporary folder. `~` and
    `$NAME` stand for what they stand for in a shell; what does not exist is left out."""
    hidden: tuple[str, ...] = ()
    """Files and folders that trials must not see, written like `readable`; `$SITE_PACKAGES` is where the packages of
    this Python are."""
    network: bool = False
    """Whether trials may reach the network."""

    def budget_for(self, device: str) -> float:
        """The budget in seconds on `device`."""
        return self.budget if self.budget is not None else (20.0 if device == "cpu" else 300.0)

    def readable_in(self, root: Path) -> tuple[Path, ...]:
        """The paths of `readable` as they are on this machine; relative ones are below `root`."""
        return _places(self.readable, root)

    def hidden_in(self, root: Path) -> tuple[Path, ...]:
        """The same of `hidden`."""
        return _places(self.hidden, root)

    def timeout_for(self, budget: float) -> float:
        """After how many seconds of wall time a trial with this budget is ended."""
        return self.timeout if self.timeout is not None else 3 * budget + 600


def _places(names: Iterable[str], root: Path) -> tuple[Path, ...]:
    """Names as a shell would read them; one with a variable that is not set names nothing."""
    packages = sysconfig.get_path("purelib")
    expanded = (os.path.expandvars(name.replace("$SITE_PACKAGES", packages)) for name in names)
    return tuple(root / Path(name).expanduser() for name in expanded if "$" not in name)


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds a study's settings. Raises: ConfigError."""
    for folder in (start, *start.parents):
        if _source(folder):
            return folder
    raise ConfigError(
        f"{start} is no labtop study: neither it nor a folder above has a labtop.toml, "
        "or [tool.labtop] in a pyproject.toml"
    )


def load(root: Path) -> Config:
    """The settings of the study at `root`, checked. Raises: ConfigError."""
    source = _source(root)
    if source is None:
        raise ConfigError(f"{root} has no [tool.labtop] in a pyproject.toml, and no labtop.toml")
    path, section = source
    text = _read(path)
    table = _table(path, section, text)
    names = Config.__struct_fields__
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(names)}"
            raise ConfigError(f"{path.name}:{_line_of(text, section, key)}: unknown key '{key}'{hint}")
    for key in ("command", "editable"):
        if key not in table:
            raise ConfigError(f"{path.name}:{_line_of(text, section, None)}: '{key}' is missing")
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        key = _key_of(error)
        where = _line_of(text, section, key)
        raise ConfigError(f"{path.name}:{where}: {key} = {table.get(key)!r}: {str(error).split(' - ')[0]}") from None

    def refuse(key: str, why: str) -> ConfigError:
        return ConfigError(f"{path.name}:{_line_of(text, section, key)}: {key}: {why}")

    for key in ("budget", "timeout", "silence"):
        value = getattr(config, key)
        if value is not None and not 0 < value < float("inf"):
            raise refuse(key, f"a number of seconds above 0 is wanted, not {value}")
    if not 0 <= config.margin < float("inf"):
        raise refuse("margin", f"a number of at least 0 is wanted, not {config.margin}")
    for limit in ("memory_gb", "disk_gb", "processes"):
        if (value := getattr(config.limits, limit)) is not None and not 0 < value < float("inf"):
            raise refuse("limits", f"{limit}: a number above 0 is wanted, not {value}")
    for key in Caps.__struct_fields__:
        if (value := getattr(config.caps, key)) is not None and not 0 < value < float("inf"):
            raise refuse("caps", f"{key}: a number above 0 is wanted, not {value}")
    for key in ("first_word", "silence", "turn", "turn_tokens", "attempts", "backoff", "longest_wait"):
        if not 0 < (value := getattr(config.asking, key)) < float("inf"):
            raise refuse("asking", f"{key}: a number above 0 is wanted, not {value}")
    for key, least in (("briefing", 2000), ("looks", 0), ("mends", 0)):
        if getattr(config.asking, key) < least:
            raise refuse("asking", f"{key}: at least {least} is wanted")
    for name, price in config.asking.prices.items():
        if name not in PRICED or not 0 <= price < float("inf"):
            raise refuse("asking", f"prices: {', '.join(PRICED)} are priced, each at 0 or more, not {name} = {price}")
    for key, least in (("repairs", 0), ("max_failures", 1), ("replicates", 1), ("confirmations", 2), ("sentinel", 0)):
        if getattr(config, key) < least:
            raise refuse(key, f"at least {least} is wanted")
    if not 0 < config.false_keep < 1:
        raise refuse("false_keep", f"a share between 0 and 1 is wanted, not {config.false_keep}")
    if not config.command.strip():
        raise refuse("command", "it is empty")
    if not config.editable:
        raise refuse("editable", "at least one file is wanted, for the agent to edit")
    for key, files in (("program", (config.program,)), ("editable", config.editable), ("frozen", config.frozen)):
        for name in files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise refuse(key, f"{name} must be a path inside the study")
            if name and name != str(PurePosixPath(name)):
                raise refuse(key, f"{name} must be written {PurePosixPath(name)}")
            if not (root / name).is_file():
                raise refuse(key, f"there is no file {name}")
    if both := set(config.editable) & {*config.frozen, config.program}:
        raise refuse("editable", f"{', '.join(sorted(both))} cannot be editable and frozen at once")
    return config


def check_tag(tag: str) -> str:
    """`tag`, if it can name a branch and a folder. Raises: ConfigError."""
    if not TAG.fullmatch(tag):
        raise ConfigError(f"--tag {tag!r}: small letters, digits, - and _ are wanted, at most 40, such as nov23")
    return tag


def default_tag(day: date) -> str:
    """The tag of a study opened on `day`, such as nov23."""
    return day.strftime("%b%d").lower()


def _source(root: Path) -> tuple[Path, str] | None:
    """The file that holds the settings and the section they stand in ("" for the whole file)."""
    if (own := root / "labtop.toml").is_file():
        return own, ""
    shared = root / "pyproject.toml"
    if shared.is_file() and re.search(r"^\s*\[tool\.labtop[\].]", _read(shared), re.MULTILINE):
        return shared, "tool.labtop"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: it is no UTF-8 text ({error.reason} at byte {error.start})") from None


def _table(path: Path, section: str, text: str) -> dict[str, Any]:
    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    for part in section.split(".") if section else ():
        table = table.get(part, {})
    return dict(table)


def _key_of(error: msgspec.ValidationError) -> str:
    found = re.search(r"at `\$\.(\w+)", str(error))
    return found.group(1) if found else ""


def _line_of(text: str, section: str, key: str | None) -> int:
    """The line, from 1, where `key` of `section` is set; the section's own line where it is not found."""
    inside, at = not section, 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            name = header.group(1).strip()
            inside = name == section
            if inside:
                at = number
            if key and name == (f"{section}.{key}" if section else key):
                return number
        elif inside and key and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""", line):
            return number
    return at
