"""Proposals: a turn of the agent, and the commit of what came of it. Whether it trains is for the engine to say."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from msgspec.structs import replace

from loop import caps, guard
from loop import events as ev
from loop.agents import Agent, AgentEvent, Draft, Failed, Proposal, Status, Text, Thought, ToolUse, Used
from loop.archive import Archive
from loop.cautions import cautions
from loop.constants import constant_changes
from loop.desk import Desk
from loop.events import AgentDelta, AnyEvent, AnyTelemetry, Change
from loop.failures import patch_mark
from loop.patch import count_lines, sketch, unified_diff
from loop.state import Experiment, StudyState, Usage
from loop.study import Study, save
from loop.trials.output import clean
from loop.workspace import Workspace

KINDS: dict[type[AgentEvent], Literal["thought", "text", "tool", "status"]] = {
    Thought: "thought",
    Text: "text",
    ToolUse: "tool",
    Status: "status",
}


class Proposer:
    """Asks the agent, one turn at a time; `end` ends the turn, from any other task.

    `record` journals events, and `publish` shows what is not journalled.
    """

    def __init__(
        self,
        study: Study,
        workspace: Workspace,
        state: StudyState,
        agent: Agent,
        *,
        record: Callable[[AnyEvent], Awaitable[None]],
        publish: Callable[[AnyTelemetry], None],
    ) -> None:
        self.feedback: list[str] = []
        """Why the proposals of the number that is asked for were refused, for the next turn."""
        self._study = study
        self._workspace = workspace
        self._state = state
        self._agent = agent
        self._record = record
        self._publish = publish
        self._archive = Archive(study)
        self._turn: asyncio.Task[Proposal | Failed] | None = None
        self._questions = asyncio.Lock()
        self._answer: asyncio.Future[bool] | None = None
        self._answered = asyncio.Event()
        self._texts: dict[str, dict[str, str]] = {}

    @property
    def busy(self) -> bool:
        """Whether the agent has its turn."""
        return self._turn is not None

    def end(self) -> None:
        """End the agent's turn, where it has one; the number is asked again."""
        if self._turn:
            self._turn.cancel()

    async def turn(self, number: int, base: str, crashed: Experiment | None = None) -> Proposal | Failed | None:
        """One turn of the agent, on the files of commit `base`. None: a person ended it."""
        self._turn = asyncio.create_task(self._ask(number, base, crashed), name=f"proposal {number}")
        try:
            return await self._turn
        except asyncio.CancelledError:
            if not self._turn.cancelled():
                raise
            return None
        finally:
            self._turn = None

    async def answer(self, allow: bool) -> bool:
        """Answer what the agent asks a person for. False: it asks for nothing."""
        if self._answer is None or self._answer.done():
            return False
        self._answer.set_result(allow)
        await self._answered.wait()
        return True

    async def _permit(self, number: int, what: str) -> bool:
        """Put to a person, in approve mode, what the agent wants to do. No answer in a turn's time is a no."""
        async with self._questions:
            if not self._state.approving:
                return False
            what = clean(what)
            self._answer = asyncio.get_running_loop().create_future()
            self._answered.clear()
            await self._record(ev.Permission(number=number, what=what))
            allowed = False
            by: ev.Author = "engine"
            try:
                with contextlib.suppress(TimeoutError):
                    allowed = await asyncio.wait_for(self._answer, self._study.config.asking.turn)
                    by = "person"
            finally:
                self._answer = None
                try:
                    await self._record(ev.Permission(number=number, what=what, allowed=allowed, by=by))
                finally:
                    self._answered.set()
            return allowed

    async def _ask(self, number: int, base: str, crashed: Experiment | None) -> Proposal | Failed:
        """One turn of the agent, its words told and kept as they come, and what it came to journalled."""
        baseline, files = self._state.baseline, await self.files(base)
        against = files if crashed is None else await self.files(crashed.base)
        assert baseline is not None and baseline.commit is not None
        desk = Desk(
            self._study,
            self._state,
            self._archive,
            self._workspace,
            number=number,
            base=base,
            files=files,
            feedback=self.feedback,
            guard=lambda changed: self._guard(number, files, changed),
            permit=lambda what: self._permit(number, what),
        )
        briefing = await desk.brief(
            program=await asyncio.to_thread(self._study.spec(self._state.spec).read_text),
            context={path: await self._text(base, path) for path in self._study.config.frozen},
            baseline_files=await self.files(baseline.commit),
            crashed=crashed,
        )
        began, used = time.monotonic(), ev.AgentUsed(number=number, agent=self._agent.name)
        outcome: Proposal | Failed = Failed(reason="the agent ended its turn without a proposal")
        path = self._study.reasoning(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as words:
            try:
                async with contextlib.aclosing(self._agent.propose(briefing, desk)) as turn:
                    async for event in turn:
                        match event:
                            case Proposal() | Failed():
                                outcome = event
                                break
                            case Draft():
                                await self._tell(number, against, files, event)
                                continue
                            case Used():
                                used = _with(used, event)
                                if self.cap_reached(used) is None:
                                    continue
                                outcome = Failed(reason="the turn was ended, since a cap of the study is reached")
                                break
                        delta = AgentDelta(number=number, kind=KINDS[type(event)], text=clean(event.text))
                        words.write(delta.text)
                        words.flush()
                        self._publish(delta)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise  # Where the words are kept; it is none of the agent's.
                # A back-end's bug must cost a turn, not the night.
                outcome = Failed(reason=f"the agent failed: {type(error).__name__}: {clean(str(error))}")
            finally:
                if used.requests:
                    usable = True if isinstance(outcome, Proposal) else False if outcome.mends else None
                    told = replace(used, mends=outcome.mends, usable=usable, seconds=time.monotonic() - began)
                    await self._record(told)
                    agent, config = self._agent.name, self._study.config
                    if said := caps.untold(agent, self._state.usage[agent], config.caps):
                        await self._record(ev.Warned(text=said))
        return outcome

    async def _tell(self, number: int, old: Mapping[str, str], files: Mapping[str, str], draft: Draft) -> None:
        """Show what the agent has written of a proposal so far."""
        new = sketch(files, draft.edits, growing=draft.growing)
        diff = await asyncio.to_thread(unified_diff, old, new)
        said = {"hypothesis": clean(draft.hypothesis), "expected_effect": clean(draft.expected_effect)}
        self._publish(ev.DraftDiff(number=number, diff=diff, **said))

    def cap_reached(self, used: ev.AgentUsed) -> str | None:
        """The cap of the study that is reached once `used` is counted, in words."""
        return caps.reached(self._state, self._study.config.caps, time.time(), Usage().plus(used))

    async def prepare(
        self,
        number: int,
        base: str,
        changed: Mapping[str, str],
        *,
        hypothesis: str,
        effect: str,
        by: Literal["agent", "person"] = "agent",
        repairs: Experiment | None = None,
    ) -> ev.Proposed:
        """Guard and commit what an experiment changes against `base`, path to new text. Raises: guard.Refused.

        `repairs`: the experiment that crashed, on whose commit this one then stands.
        """
        files, config = await self.files(base), self._study.config
        mark = self._guard(number, files, changed)
        diff = unified_diff(files, changed)
        await asyncio.to_thread(save, self._study.diff(number), diff)
        self._publish(ev.DraftDiff(number=number, diff=diff, hypothesis=hypothesis, expected_effect=effect))
        who = self._agent.name if by == "agent" else f"{self._agent.name}, amended by a person"
        message = f"{number:04d}: {hypothesis}\n\nExpected: {effect}\nAgent: {who}\nSpec: {self._state.spec}\n"
        parent, texts = base, changed
        if repairs is not None and repairs.commit is not None:
            message = f"{number:04d}, repair {repairs.repairs}: {message[6:]}"
            parent, texts = repairs.commit, {**files, **changed}
        commit = await asyncio.to_thread(self._workspace.commit, parent, texts, message)
        added, removed = count_lines(diff)
        moved: tuple[Change, ...] = ()
        for path in sorted(changed):
            if path.endswith(".py"):
                moved += constant_changes(files[path], changed[path], self._state.device)
        return ev.Proposed(
            number=number,
            commit=commit,
            hypothesis=hypothesis,
            expected_effect=effect,
            changes=moved,
            added=added,
            removed=removed,
            fingerprint=mark,
            patch=patch_mark(diff),
            cautions=await asyncio.to_thread(cautions, files, changed, metric=config.metric),
            by=by,
            repair=repairs.repairs if repairs else 0,
        )

    def _guard(self, number: int, files: Mapping[str, str], changed: Mapping[str, str]) -> str:
        """The fingerprint of the `files` once they are `changed`. Raises: guard.Refused."""
        config = self._study.config
        tried = {
            experiment.fingerprint: experiment
            for experiment in self._state.experiments
            if experiment.fingerprint and experiment.number != number
        }
        return guard.check(
            files,
            changed,
            editable=config.editable,
            frozen=config.frozen,
            tried=tried,
            repeats=config.repeats == "rerun",
        )

    async def _text(self, commit: str, path: str) -> str:
        return await asyncio.to_thread(self._workspace.read, commit, path) or ""

    async def files(self, commit: str) -> dict[str, str]:
        """The editable files at `commit`, path to text. Cached: most experiments stand on the same two commits."""
        if commit not in self._texts:
            if len(self._texts) > 8:
                self._texts.clear()
            self._texts[commit] = {path: await self._text(commit, path) for path in self._study.config.editable}
        return self._texts[commit]


def _with(used: ev.AgentUsed, more: Used) -> ev.AgentUsed:
    """With one more request."""
    return replace(
        used,
        requests=used.requests + 1,
        input=used.input + more.input,
        cached=used.cached + more.cached,
        output=used.output + more.output,
        cost=used.cost + (more.cost or 0.0),
        unpriced=used.unpriced + (more.input + more.output if more.cost is None else 0),
    )
