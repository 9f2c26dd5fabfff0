"""The person's own agent over the Agent Client Protocol: Claude Code, Codex, Gemini, or any command that speaks it.

labtop is the client. The agent works in a folder of its own that holds the incumbent's files; what it leaves in the
editable ones becomes the proposal, and all else is put back. What it may do meanwhile stands in `session`; in approve
mode the person is asked beyond that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from pathlib import Path

from loop.agents import AgentEvent, Desk, Failed, Known, Proposal, Status, Unavailable
from loop.agents.prompt import RULES
from loop.agents.reply import LONGEST_WORDS, excerpt, masked, safe
from loop.agents.session import Lost, Person, opened
from loop.agents.worktree import Worktree
from loop.briefing import Briefing, compose, shorten
from loop.config import Asking
from loop.patch import Edit

KNOWN = {
    "claude": ("claude-agent-acp", "@agentclientprotocol/claude-agent-acp"),
    "codex": ("codex-acp", "@agentclientprotocol/codex-acp"),
    "gemini": ("gemini --acp", "@google/gemini-cli"),
}
"""The command of each, and the npm package that brings it."""

TASK = """\
You are in a folder with the files of the study. Make your change there, in these files only: {editable}. Whatever else
you change is put back. Run nothing: no training, no tests, no git; the lab does that. What you know of the study:

{briefing}

When the files are as you want them, end your last message with these two lines, each at most three sentences:

HYPOTHESIS: what you changed, and why it should help here
EXPECTED: the effect on the metric that you expect, with sign and size
"""

_STATED = {
    name: re.compile(
        rf"^[\s>*#_`-]*{name}[*_`]*\s*:[*_`]*\s*(.+?)(?=^[\s>*#_`-]*(?:HYPOTHESIS|EXPECTED)\b|\Z)", re.M | re.S
    )
    for name in ("HYPOTHESIS", "EXPECTED")
}
_SECRET = re.compile(r"(?:_KEY|_TOKEN|_SECRET|_PASSWORD)$")
"""Variables whose values nobody is told."""


class AcpAgent:
    """See the module's words. `spec`: claude, codex, gemini, or a command. Raises: Unavailable."""

    repairs = True

    def __init__(self, spec: str, *, asking: Asking | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self.name = f"acp:{spec}"
        self._asking = asking or Asking()
        self._secrets = tuple(value for name, value in environment.items() if _SECRET.search(name))
        self._session = partial(
            opened,
            command(spec, environment.get("PATH")),
            environment=environment,
            asking=self._asking,
            secrets=self._secrets,
        )

    async def propose(self, briefing: Briefing, desk: Desk) -> AsyncGenerator[AgentEvent, None]:
        queue: asyncio.Queue[AgentEvent | None] = asyncio.Queue()
        turn = asyncio.create_task(self._turn(briefing, desk, queue.put_nowait))
        turn.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield safe(event, *self._secrets)
            yield safe(turn.result(), *self._secrets)
        finally:
            turn.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await turn

    async def probe(self) -> tuple[str, ...]:
        """Start the agent and open a session, and say how it answers. Raises: Unavailable."""
        try:
            with tempfile.TemporaryDirectory(prefix="labtop-") as place:
                worktree = Worktree(Path(place))
                async with self._session(worktree, (), lambda _: None) as session:
                    return (f"{session.title} opens a session",)
        except Lost as trouble:
            raise Unavailable(masked(trouble.reason, *self._secrets)) from None

    async def _turn(self, briefing: Briefing, desk: Desk, tell: Callable[[AgentEvent], None]) -> Proposal | Failed:
        mends, problem, editable = 0, "", sorted(briefing.files)
        worktree = await asyncio.to_thread(Worktree, await desk.worktree())
        try:
            async with (
                asyncio.timeout(self._asking.turn) as clock,
                self._session(worktree, editable, tell, person=Person(desk, clock)) as session,
            ):
                said = compose(briefing, self._asking.briefing, await desk.nearest_failures())
                words = f"{RULES}\n{TASK.format(editable=', '.join(editable), briefing=said)}"
                while mends <= self._asking.mends:
                    stop = await session.ask(words)
                    changed = await asyncio.to_thread(worktree.changed)
                    outside = [path for path in changed if path not in briefing.files]
                    if told := await asyncio.to_thread(worktree.put_back, outside):
                        tell(
                            Status(
                                f"put back, since it may not be changed: {excerpt(', '.join(told), self._secrets)}\n"
                            )
                        )
                    try:
                        if stop == "refusal":
                            raise ValueError("you refused; propose a change that the spec allows")
                        if not (own := [path for path in changed if path in briefing.files]):
                            raise ValueError(f"no editable file was changed; they are: {', '.join(editable)}")
                        texts = await asyncio.to_thread(worktree.texts, own)
                        edits = tuple(Edit(path, "", text) for path, text in texts.items())
                        await desk.check(edits)
                        hypothesis, effect = stated(masked(session.speech, *self._secrets))
                        return Proposal(hypothesis, effect, edits, mends)
                    except Known as known:
                        problem = str(known)
                        tell(Status("the proposal goes back once: something like it was tried\n"))
                    except ValueError as error:
                        mends += 1
                        problem = f"What you left cannot be used: {error}\n\nMend it in the files."
                        tell(Status(f"the proposal goes back: {excerpt(str(error), self._secrets, 200)}\n"))
                    words = f"{problem} End with the lines HYPOTHESIS: and EXPECTED: again."
        except TimeoutError:
            return Failed(f"{self.name} did not finish within {self._asking.turn:g} s", mends=mends)
        except Lost as trouble:
            return Failed(trouble.reason, trouble.wait, trouble.away, mends)
        return Failed(f"no usable proposal in {mends} tries; the last: {excerpt(problem, self._secrets)}", mends=mends)


def command(spec: str, path: str | None = None) -> tuple[str, ...]:
    """The command that `spec` stands for. Raises: Unavailable, with what to install."""
    line, package = KNOWN.get(spec, (spec, ""))
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise Unavailable(f"--agent acp:{spec} is no command: {error}") from None
    if not words:
        raise Unavailable("--agent acp: wants a name or a command behind it, such as acp:claude")
    if shutil.which(words[0], path=path):
        return tuple(words)
    if package and shutil.which("npx", path=path):
        return ("npx", "--yes", package, *words[1:])
    advice = f"install it: npm install -g {package}" if package else "give the whole path, or mend PATH"
    raise Unavailable(f"there is no program {words[0]}; {advice}")


def stated(speech: str) -> tuple[str, str]:
    """Hypothesis and expected effect, as the agent stated them; else its last words stand for the first."""
    hypothesis, effect = (
        found[-1] if (found := [" ".join(said.split()).strip(" *_`") for said in _STATED[name].findall(speech)]) else ""
        for name in ("HYPOTHESIS", "EXPECTED")
    )
    paragraphs = [" ".join(part.split()) for part in speech.split("\n\n") if part.strip()]
    hypothesis = hypothesis or (paragraphs[-1] if paragraphs else "the agent did not say what it is for")
    return shorten(hypothesis, LONGEST_WORDS), shorten(effect or "not stated", LONGEST_WORDS)
