"""`labtop …`: the command line, and the only place that knows both the engine's side and the cockpit's."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from loop import commands
from loop.commands import AnyCommand
from loop.config import ConfigError, check_tag, default_tag, find_root
from loop.remote.client import Client, EngineGone
from loop.remote.daemon import Order, StartFailed, start
from loop.state import StudyState
from loop.study import answers, socket_path, tags

REFUSED, WRONG, NONE = 1, 2, 3
"""Exit statuses: the engine refused or failed; settings, arguments or the start are wrong; there is no engine."""

STEERING = (
    "pause",
    "resume",
    "step",
    "reject",
    "keep",
    "undo",
    "gate",
    "approve",
    "permit",
    "amend",
    "break",
    "note",
    "stop",
)
"""The commands that ask the engine for something."""

HEADLESS_EXPERIMENTS = 10
"""So many a run without a terminal makes, where it is not told how many."""

Act = Callable[[argparse.Namespace], int]
"""Carries a command line out and gives the exit status."""


class Quit(Exception):
    """End with this status; the sentence goes to stderr."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    asked = parser().parse_args(arguments)
    try:
        status = asked.act(asked)
    except Quit as quit:
        print(f"labtop: {quit}", file=sys.stderr)
        status = quit.status
    except (ConfigError, StartFailed) as error:
        print(f"labtop: {error}", file=sys.stderr)
        status = WRONG
    except EngineGone as error:
        print(f"labtop: {error}", file=sys.stderr)
        status = NONE
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader of our output has left, as `head` does; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)


class _Brief(argparse.HelpFormatter):
    """The commands without a line that says that they are commands: a small screen has 24."""

    def _format_action(self, action: argparse.Action) -> str:
        told = super()._format_action(action)
        return told.partition("\n")[2] if action.metavar == "COMMAND" else told


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="labtop",
        description="Watch an agent do research, and steer it. Alone, it opens the cockpit.",
        epilog=f"To steer the engine: {', '.join(STEERING)}; each has a --help. example: labtop run --tag may12",
        parents=[_common(folder=Path(), tag=None)],
        formatter_class=_Brief,
    )
    top.set_defaults(act=_open, ascii=False)
    rooms = top.add_subparsers(metavar="COMMAND", title="commands")

    def add(name: str, act: Act, words: str, example: str) -> argparse.ArgumentParser:
        # What steers is named in one line: with a line for each the help would be longer than a small screen.
        listed: dict[str, Any] = {} if name in STEERING else {"help": words}
        made = rooms.add_parser(
            name, parents=[_common()], description=_sentence(words), epilog=f"example: {example}", **listed
        )
        made.set_defaults(act=act)
        return made

    run = add("run", _run, "start the engine, or go on with its study, and watch it", "labtop run --experiments 50")
    run.add_argument(
        "--experiments",
        type=_count,
        metavar="N",
        help=f"end after N proposals [without end; headless {HEADLESS_EXPERIMENTS}]",
    )
    run.add_argument(
        "--agent",
        metavar="SPEC",
        help="who proposes: search, openai:MODEL, acp:claude, acp:codex, acp:COMMAND … [search]",
    )
    run.add_argument("--budget", type=_seconds, metavar="S", help="seconds of training a trial [cpu 20, else 300]")
    run.add_argument("--headless", action="store_true", help="one line per event instead of the cockpit")
    run.add_argument("--device", choices=("cuda", "mps", "cpu"), help="what to train on [the best there is]")
    attach = add("attach", _attach, "open the cockpit on the engine that runs", "labtop attach --tag may12")
    watch = add("watch", _attach, "the same, or a line per event for logs and screen readers", "labtop watch --plain")
    watch.add_argument("--plain", action="store_true", help="a line per event, and nothing else")
    for opens in (top, run, attach, watch):
        opens.add_argument(
            "--ascii", action="store_true", default=argparse.SUPPRESS, help="draw the cockpit with ASCII alone"
        )
    serve = add("serve", _serve, "the cockpit in a browser on this machine", "labtop serve --port 8000")
    serve.add_argument("--port", type=_port, default=8000, metavar="N", help="where [8000]; to 127.0.0.1 alone")
    status = add("status", _status, "how the study stands", "labtop status --json | jq .best.value")
    status.add_argument("--json", action="store_true", help="the whole state, for programs")

    add("report", _report, "the study on a page of Markdown", "labtop report > report.md")
    add("pause", _give(lambda _: commands.Pause()), "hold the study; a running training waits", "labtop pause")
    add("resume", _give(lambda _: commands.Resume()), "go on", "labtop resume")
    add("step", _give(lambda _: commands.Step()), "pass one gate (propose, run, judge), then wait", "labtop step")
    reject = add(
        "reject",
        _give(lambda asked: commands.Reject(why=asked.why)),
        "end the running experiment and go on with the next",
        'labtop reject --why "it only memorises"',
    )
    reject.add_argument("--why", required=True, type=_words, help="the reason; the agent reads it")
    keep = add(
        "keep",
        _give(lambda asked: commands.Keep(number=asked.number, why=asked.why)),
        "keep an experiment by hand, overruling the judge",
        'labtop keep 12 --why "simpler, and no worse"',
    )
    keep.add_argument("number", nargs="?", type=_count, metavar="N", help="which one [the latest with a value]")
    keep.add_argument("--why", required=True, type=_words, help="the reason; the agent reads it")
    undo = add(
        "undo",
        _give(lambda asked: commands.Undo(why=asked.why)),
        "take the latest verdict back; the branch goes back too",
        'labtop undo --why "the wrong one"',
    )
    undo.add_argument("--why", required=True, type=_words, help="the reason; it stands in the journal")
    gate = add(
        "gate",
        _give(lambda asked: commands.Gate(on=asked.mode == "on")),
        "approve mode: nothing trains before a person approves it",
        "labtop gate on",
    )
    gate.add_argument("mode", choices=("on", "off"))
    approve = add(
        "approve",
        _give(lambda asked: commands.Approve(number=asked.number)),
        "let the proposal that waits train",
        "labtop approve 12",
    )
    approve.add_argument("number", nargs="?", type=_count, metavar="N", help="the one you looked at [whatever waits]")
    permit = add(
        "permit",
        _give(lambda asked: commands.Permit(allow=asked.answer == "yes")),
        "answer what a coding agent asks to be allowed, in approve mode",
        "labtop permit no",
    )
    permit.add_argument("answer", choices=("yes", "no"))
    amend = add(
        "amend",
        _give(lambda asked: commands.Amend(diff=_patch(asked.patch), number=asked.number)),
        "replace the patch that waits for approval",
        "labtop amend 12 --patch mine.diff",
    )
    amend.add_argument("number", nargs="?", type=_count, metavar="N", help="the one you looked at [whatever waits]")
    amend.add_argument("--patch", required=True, metavar="FILE", help="a unified diff against the incumbent; -: stdin")
    stops = add(
        "break",
        _break,
        "pause when a condition holds; without one, list them",
        'labtop break "peak_vram_mb > 24000"',
    )
    stops.add_argument("condition", nargs="?", type=_words, help='"touches LAYERS", "crash", "gain < noise" …')
    stops.add_argument("--forget", action="store_true", help="forget that one, or, without a condition, all")
    note = add(
        "note",
        _give(lambda asked: commands.Note(text=asked.text, number=asked.on)),
        "tell the agent something, for its next briefing",
        'labtop note "try fewer layers"',
    )
    note.add_argument("text", type=_words)
    note.add_argument("--on", type=_count, metavar="N", help="the experiment that it is about")
    stop = add(
        "stop",
        _give(lambda asked: commands.Stop(now=asked.now)),
        "end the engine after the running experiment",
        "labtop stop --now",
    )
    stop.add_argument("--now", action="store_true", help="do not wait; that experiment is run again next time")
    doctor = add("doctor", _doctor, "what is missing on this machine, and what to do about it", "labtop doctor")
    doctor.add_argument("--agent", metavar="SPEC", help="the agent that is tried [that of the settings]")
    doctor.add_argument("--unit", action="store_true", help="print a systemd unit that runs the study across reboots")
    return top


def _common(**defaults: object) -> argparse.ArgumentParser:
    """What may stand before a command and after it; there it has no defaults, which would undo what stands before."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-C", dest="folder", type=Path, metavar="DIR", help="as if in DIR")
    common.add_argument("--tag", help="the study [the latest one]")
    common.set_defaults(**defaults)
    return common


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number is wanted, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is wanted, a number up to 65535, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is wanted, not {text!r}")
    return seconds


def _words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("words are wanted")
    return text.strip()


def _tag(root: Path, asked: argparse.Namespace) -> str:
    """The study that is meant: the named one, else the latest, else a new one of today."""
    if asked.tag is not None:
        return check_tag(asked.tag)
    return next(iter(tags(root)), default_tag(date.today()))


def _running(asked: argparse.Namespace) -> tuple[Path, str]:
    """Root and tag of the one engine that is meant. Raises: ConfigError, Quit."""
    root = find_root(asked.folder.resolve())
    if asked.tag is not None:
        if not answers(socket_path(root, check_tag(asked.tag))):
            raise Quit(NONE, f"no engine runs study {asked.tag}; start it with: labtop run --tag {asked.tag}")
        return root, asked.tag
    alive = [tag for tag in tags(root) if answers(socket_path(root, tag))]
    if not alive:
        raise Quit(NONE, f"no engine runs in {root}; start one with: labtop run")
    if len(alive) > 1:
        raise Quit(WRONG, f"engines run for {', '.join(alive)}; say which with --tag")
    return root, alive[0]


def _open(asked: argparse.Namespace) -> int:
    return _run(
        argparse.Namespace(**vars(asked), experiments=None, agent=None, budget=None, device=None, headless=False)
    )


def _run(asked: argparse.Namespace) -> int:
    root = find_root(asked.folder.resolve())
    tag = _tag(root, asked)
    socket = socket_path(root, tag)
    headless = asked.headless or not _has_screen()
    options = ("experiments", "agent", "budget", "device")
    given = [f"--{name}" for name in options if getattr(asked, name) is not None]
    if answers(socket):
        if given:
            raise Quit(
                REFUSED,
                f"an engine runs study {tag} already, so {', '.join(given)} cannot take effect; "
                f"`labtop attach` shows it, `labtop stop` ends it, --tag NAME opens another study",
            )
    else:
        start(
            Order(
                root=str(root),
                tag=tag,
                agent=asked.agent,
                device=asked.device,
                budget=asked.budget,
                experiments=HEADLESS_EXPERIMENTS if headless and asked.experiments is None else asked.experiments,
            )
        )
    return _watch(root, tag, headless=headless, guest=False, ascii_only=asked.ascii)


def _attach(asked: argparse.Namespace) -> int:
    root, tag = _running(asked)
    plain = getattr(asked, "plain", False) or not _has_screen()
    return _watch(root, tag, headless=plain, guest=True, ascii_only=asked.ascii)


def _has_screen() -> bool:
    """Whether the cockpit can be drawn: on a terminal, or on what Textual is told to take for one, as in a browser."""
    return "TEXTUAL_DRIVER" in os.environ or (sys.stdin.isatty() and sys.stdout.isatty())


def _watch(root: Path, tag: str, *, headless: bool, guest: bool, ascii_only: bool) -> int:
    """`guest`: whoever watches came to an engine that others may look after."""
    socket = socket_path(root, tag)
    if headless:
        from tui.plain import watch

        try:
            return asyncio.run(watch(socket, guest=guest))
        except KeyboardInterrupt:
            print(f"\ndetached; the engine of {tag} goes on: labtop attach, labtop stop", file=sys.stderr)
            return 130
    # Until the study is on the screen: to look for garbage while everything is loaded takes a sixth of that time.
    gc.disable()
    from loop.config import load
    from tui.app import LabtopApp

    if not ascii_only:
        from tui.look import wants_ascii

        ascii_only = wants_ascii()
    said = LabtopApp(socket=socket, root=root, program=Path(load(root).program), ascii_only=ascii_only).run()
    if said:
        print(said)
    return 0


def _give(make: Callable[[argparse.Namespace], AnyCommand]) -> Act:
    """What sends one command to the engine and prints its answer."""

    def act(asked: argparse.Namespace) -> int:
        root, tag = _running(asked)
        return asyncio.run(_send(socket_path(root, tag), make(asked)))

    return act


async def _send(socket: Path, command: AnyCommand) -> int:
    client = await Client.connect(socket)
    try:
        reply = await client.do(command)
    finally:
        await client.close()
    print(reply.text if reply.ok else f"labtop: {reply.text}", file=sys.stdout if reply.ok else sys.stderr)
    return 0 if reply.ok else REFUSED


def _patch(name: str) -> str:
    """The text of a patch; `-` is stdin. Raises: Quit."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Quit(WRONG, f"{name} cannot be read: {error}") from error


def _break(asked: argparse.Namespace) -> int:
    if asked.condition is None and not asked.forget:
        state, _ = _state(asked)
        print("\n".join(state.breakpoints) or 'there is no breakpoint; set one: labtop break "touches LAYERS"')
        return 0
    if asked.forget:
        return _give(lambda asked: commands.Unbreak(condition=asked.condition or ""))(asked)
    return _give(lambda asked: commands.Break(condition=asked.condition))(asked)


def _serve(asked: argparse.Namespace) -> int:
    root, tag = _running(asked)
    try:
        from tui.browser import Browser
    except ImportError:
        raise Quit(WRONG, "`labtop serve` needs textual-serve: pip install 'labtop[serve]'") from None
    command = shlex.join([sys.executable, "-m", "tui.cli", "-C", str(root), "attach", "--tag", tag])
    try:
        browser = Browser(command, port=asked.port, title=f"labtop {tag}")
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Quit(WRONG, f"port {asked.port} cannot be had: {why}; name another with --port") from None
    print(f"the cockpit of {tag}: {browser.address} (ctrl+c ends this, not the engine)")
    tunnel = f"ssh -L {browser.port}:127.0.0.1:{browser.port} …"
    print(f"whoever has this address steers the study; from another machine first: {tunnel}", flush=True)
    browser.run()
    return 0


def _status(asked: argparse.Namespace) -> int:
    from tui.plain import as_json, overview

    state, alive = _state(asked)
    print(as_json(state, alive=alive) if asked.json else overview(state, alive=alive))
    return 0


def _state(asked: argparse.Namespace) -> tuple[StudyState, bool]:
    """The study as its journal has it, and whether an engine runs it. Raises: Quit where there is none."""
    from loop import journal
    from loop.state import fold
    from loop.study import journal_path

    root = find_root(asked.folder.resolve())
    tag = _tag(root, asked)
    state = fold(journal.read(journal_path(root, tag)))
    if not state.seq:
        raise Quit(NONE, f"there is no study {tag} in {root} yet; start one with: labtop run --tag {tag}")
    return state, answers(socket_path(root, tag))


def _report(asked: argparse.Namespace) -> int:
    from tui.plain import overview
    from tui.report import report

    state, alive = _state(asked)
    print(report(state, overview(state, alive=alive)))
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    from tui.doctor import examine, unit

    folder = asked.folder.resolve()
    if asked.unit:
        root = find_root(folder)
        print(unit(root, _tag(root, asked)))
        return 0
    return examine(folder, asked.agent)


if __name__ == "__main__":
    main()
