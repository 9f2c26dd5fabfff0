"""One proposal with each back-end, end to end, as a transcript; and how often what an agent proposes can be run.

    PATH=$PWD/node_modules/.bin:$PATH python benchmarks/agents.py > docs/agents.txt
    OPENAI_API_KEY=… python benchmarks/agents.py --real openai:MODEL --experiments 50 --check

The first: real clients and real coding agents, where they are installed, and on loopback a stand-in for the model
behind them, which says what it is scripted to. Each has a home of its own, so that neither login nor settings of a
person's are used. The second asks a real agent, under the environment as it is, for experiments on this repository's
own script, and tells the share of its turns whose edits could be run; nothing is trained, the results are drawn.
`--check` exits 1 where an aim is missed: 95 % at the first try, 99 % after mending.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "standin"))

from models import KEY, Model, answer  # type: ignore[import-not-found]  # noqa: E402
from protocols import Freeform  # type: ignore[import-not-found]  # noqa: E402

from loop.agents import Agent, make  # noqa: E402
from loop.agents.acp import KNOWN, AcpAgent  # noqa: E402
from loop.agents.openai import OpenAIAgent  # noqa: E402
from loop.config import Asking, load  # noqa: E402
from loop.engine import Engine  # noqa: E402
from loop.events import AgentDelta, Record  # noqa: E402
from loop.journal import Journal  # noqa: E402
from loop.state import StudyState, Usage  # noqa: E402
from loop.study import Study  # noqa: E402
from loop.workspace import Workspace  # noqa: E402
from tui import plain, words  # noqa: E402

FIRST, MENDED = 0.95, 0.99
"""Aims: the share of turns whose first answer can be run, and whose first or a later one can."""

LONGEST = 300.0
"""Seconds of one transcript."""

SETTINGS = 'command = "python {script}"\neditable = ["train.py"]\nbudget = 1\npolicy = "margin"\nsandbox = "off"\n'
DRAWN = '''"""Stands in for a training: what train.py comes to is drawn from its text."""

import hashlib
from pathlib import Path

print("---")
print(f"val_bpb: {1.5 + int(hashlib.sha256(Path('train.py').read_bytes()).hexdigest()[:6], 16) / 2**24 / 20:.6f}")
'''

OLD, NEW = "LEARNING_RATE = 0.02", "LEARNING_RATE = 0.1"
LINE = "  # 0.001..0.5 (log) — the bowl's bottom is at 0.1"
WHY, EFFECT = "LEARNING_RATE 0.02 -> 0.1, since the bowl's bottom is at 0.1.", "-0.08"
SAID = f"The loss is far from the bottom at this rate.\n\nHYPOTHESIS: {WHY}\nEXPECTED: {EFFECT}"
PATCH = f"*** Begin Patch\n*** Update File: train.py\n@@\n-{OLD}{LINE}\n+{NEW}{LINE}\n*** End Patch"
CODEX = """model = "gpt-5"
model_provider = "loop"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.loop]
name = "loop"
base_url = "{url}"
wire_api = "responses"
env_key = "LOOP_KEY"
request_max_retries = 0
stream_max_retries = 0
"""

HEAD = """\
One proposal with each back-end, {day}, by benchmarks/agents.py: the real clients and agents, and on loopback a
stand-in for the model behind them (tests/standin), which says what it is scripted to. So the shares at the end tell of
the script and of no model: those of real ones want a key, and `benchmarks/agents.py --real AGENT`. The trainer is
tests/standin/train.py. What stands behind | is what the agent thought, said and did."""

Answer = Callable[[Any], Awaitable[None]]


class Show(NamedTuple):
    """One back-end. `home` and `folder` are where it lives and works, `url` is the stand-in's."""

    title: str
    agent: Callable[[Path, str], Agent]
    answers: Callable[[Path], list[Answer]]
    program: str = ""
    """What has to be installed."""


def idea(search: str) -> dict[str, Any]:
    edits = [{"path": "train.py", "search": search, "replace": NEW}]
    return {"hypothesis": WHY, "expected_effect": EFFECT, "edits": edits}


def model(protocol: Any) -> Callable[[Path, str], Agent]:
    environment = {"OPENAI_API_KEY": KEY}
    asking = Asking(protocol=protocol)
    return lambda _, url: OpenAIAgent("stand-in", asking=asking, environment={**environment, "OPENAI_BASE_URL": url})


def person(name: str, settings: Callable[[Path, str], Mapping[str, str]]) -> Callable[[Path, str], Agent]:
    """An agent of a person's, in a home of its own."""

    def agent(home: Path, url: str) -> Agent:
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "NO_PROXY": "*", "TERM": "dumb"}
        return AcpAgent(
            name, asking=Asking(first_word=60.0, turn=200.0), environment={**environment, **settings(home, url)}
        )

    return agent


def codex_settings(home: Path, url: str) -> Mapping[str, str]:
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(CODEX.format(url=url))
    return {"LOOP_KEY": KEY}


def claude_settings(home: Path, url: str) -> Mapping[str, str]:
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1"}
    return {**quiet, "ANTHROPIC_BASE_URL": url.removesuffix("/v1"), "ANTHROPIC_API_KEY": KEY, "IS_SANDBOX": "1"}


def gemini_settings(home: Path, url: str) -> Mapping[str, str]:
    return {"GOOGLE_GEMINI_BASE_URL": url.removesuffix("/v1"), "GEMINI_API_KEY": KEY, "GEMINI_TELEMETRY_ENABLED": "0"}


def looked(*proposals: dict[str, Any]) -> list[Answer]:
    """A model that reads, and then proposes."""
    first = answer(think="The rate looks low.", calls=[("read_file", {"path": "train.py"})], usage=(2100, 0, 40))
    said = {"think": "It is.", "say": "I raise the rate.", "usage": (2400, 2048, 120)}
    return [first, *(answer(**said, calls=[("propose", proposal)]) for proposal in proposals)]


def codex(folder: Path) -> list[Answer]:
    async def patch(exchange: Any) -> None:
        """By whatever tool it has for that."""
        tools = {tool.get("name") or tool["type"]: tool for tool in exchange.body["tools"]}
        shell = f"apply_patch <<'EOF'\n{PATCH}\nEOF"
        if tools.get("apply_patch", {}).get("type") == "custom":
            call = ("apply_patch", Freeform(PATCH))
        elif "exec_command" in tools:
            call = ("exec_command", {"cmd": shell})
        else:
            call = ("shell_command", {"command": shell})
        await answer(think="The rate is low.", calls=[call], usage=(9000, 0, 100))(exchange)

    return [patch, answer(think="It is in the file now.", say=SAID, usage=(9500, 9000, 80))]


def claude(folder: Path) -> list[Answer]:
    file = str(folder / "train.py")
    calls = (
        ("Read", {"file_path": file}),
        ("Edit", {"file_path": file, "old_string": OLD, "new_string": NEW}),
        ("Bash", {"command": "touch elsewhere", "description": "Touch a file"}),
    )
    used = {"usage": (900, 0, 60)}
    return [*(answer(think="The rate is low.", calls=[call], **used) for call in calls), answer(say=SAID, **used)]


def gemini(folder: Path) -> list[Answer]:
    file = str(folder / "train.py")
    edit = {"file_path": file, "instruction": "raise the rate", "old_string": OLD, "new_string": NEW}
    calls = (
        ("read_file", {"file_path": file}),
        ("replace", edit),
        ("run_shell_command", {"command": "touch elsewhere", "description": "touch a file"}),
    )
    used = {"usage": (900, 0, 60)}
    return [
        *(answer(think="**The rate** It is low.", calls=[call], **used) for call in calls),
        answer(say=SAID, **used),
    ]


SHOWS = (
    Show(
        "openai:MODEL by Chat Completions: it reads a file first, and its first edit misses and goes back",
        model("chat"),
        lambda _: looked(idea("LEARNING_RATE = 0.020"), idea(OLD)),
    ),
    Show(
        "openai:MODEL by the Responses API, its reasoning summary streamed",
        model("responses"),
        lambda _: looked(idea(OLD)),
    ),
    Show(
        "acp:codex, its model provider set to the stand-in; it edits without asking, by its own sandbox",
        person("codex", codex_settings),
        codex,
        "codex",
    ),
    Show(
        "acp:claude, ANTHROPIC_BASE_URL set to the stand-in; it asks before it edits, which is allowed,\n"
        "and before it runs a command, which is refused",
        person("claude", claude_settings),
        claude,
        "claude",
    ),
    Show(
        "acp:gemini, GOOGLE_GEMINI_BASE_URL set to the stand-in; it asks before it edits, which is allowed,\n"
        "and before it runs a command, which is refused",
        person("gemini", gemini_settings),
        gemini,
        "gemini",
    ),
)


def lay(root: Path, script: str, files: Mapping[str, str]) -> None:
    """A committed study of `files` that `script` measures."""
    root.mkdir()
    for name, text in {
        **files,
        "program.md": "Make it better.\n",
        "labtop.toml": SETTINGS.format(script=script),
    }.items():
        (root / name).write_text(text)
    (root / ".gitignore").write_text(".labtop/\n")
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "a study"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)


async def run(root: Path, agent: Agent, experiments: int, out: TextIO) -> StudyState:
    """A study of so many experiments, told line by line; what the agent says stands behind `|`."""
    study = Study(root=root, tag="show", config=load(root), device="cpu", budget=1.0, agent=agent.name, sandbox="off")
    journal = Journal(study.journal)
    engine = Engine(study, journal=journal, workspace=Workspace(root, study.tag), agent=agent, experiments=experiments)
    speech: list[str] = []

    def tell(line: str) -> None:
        print(line.replace(str(root.parent), "…"), file=out, flush=True)

    def hear(message: object) -> None:
        if isinstance(message, AgentDelta):
            speech.append(f"\n* {message.text}" if message.kind in ("tool", "status") else message.text)
        elif isinstance(message, Record):
            for said in "".join(speech).splitlines():
                if said.strip():
                    tell(f"             | {said.rstrip()}")
            speech.clear()
            if line := plain.line(message, engine.state):
                tell(line)

    engine.listen(hear)
    try:
        await engine.run()
    finally:
        journal.close()
    return engine.state


def shares(usage: Mapping[str, Usage]) -> str:
    """A line for each agent."""
    rows = [f"{name:<28} {used.turns:>5}  {words.edits(used):<48} {words.bill(used)}" for name, used in usage.items()]
    return "\n".join([f"{'agent':<28} {'turns':>5}  {'edits that could be run':<48} used", *rows])


async def show_all(home: Path) -> None:
    known: dict[str, Usage] = {}
    for at, show in enumerate(SHOWS):
        print(f"\n{'=' * 100}\n{show.title}\n{'=' * 100}")
        command, package = KNOWN.get(show.program, ("", ""))
        if command and not shutil.which(command.split()[0]):
            print(f"Not shown: there is no {command.split()[0]} on PATH; npm install {package} brings it.")
            continue
        place = home / str(at)
        place.mkdir()
        lay(place / "lab", "train.py", {"train.py": (ROOT / "tests/standin/train.py").read_text()})
        folder = place / "lab" / ".labtop" / "show" / "worktree"
        async with Model(*show.answers(folder)) as behind:
            agent = show.agent(place, behind.url)
            state = await asyncio.wait_for(run(place / "lab", agent, 1, sys.stdout), LONGEST)
        print(f"\n{plain.summary(state)}")
        known |= {f"{name} ({at + 1})": used for name, used in state.usage.items()}
    print(f"\n{'=' * 100}\n{shares(known)}")


async def ask(spec: str, experiments: int, home: Path) -> Usage:
    """What a real agent's turns come to."""
    files = {"train.py": (ROOT / "trainer/train.py").read_text(), "drawn.py": DRAWN}
    lay(home / "lab", "drawn.py", files)
    state = await run(home / "lab", make(spec), experiments, sys.stderr)
    return state.usage.get(spec, Usage())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", metavar="AGENT", help="ask this one, such as openai:MODEL, and print its shares")
    parser.add_argument("--experiments", type=int, default=50, metavar="N", help="to ask it for [50]")
    parser.add_argument("--check", action="store_true", help="exit with 1 where an aim is missed")
    asked = parser.parse_args()
    # In the home, since Codex's sandbox does not work below a temporary folder.
    with tempfile.TemporaryDirectory(prefix=".labtop-show-", dir=Path.home()) as home:
        if not asked.real:
            print(HEAD.format(day=time.strftime("%Y-%m-%d")))
            asyncio.run(show_all(Path(home)))
            return 0
        used = asyncio.run(ask(asked.real, asked.experiments, Path(home)))
    print(shares({asked.real: used}))
    missed = [
        f"{what} {100 * (share or 0):.1f} % of the turns, not {100 * aim:.0f} %, came to edits that could be run"
        for what, share, aim in (
            ("at the first try", used.first_share, FIRST),
            ("after mending", used.usable_share, MENDED),
        )
        if share is None or share < aim
    ]
    for aim in missed:
        print(f"missed: {aim}", file=sys.stderr)
    return 1 if asked.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
