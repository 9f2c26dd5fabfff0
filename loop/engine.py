"""The engine: propose, guard, run, judge, one experiment after another.

It is a state machine whose position is the fold of the journal, nothing else. So a restart needs no code of its own:
the machine looks at the stage the journal tells and goes on from there, and every side effect is safe to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import watchfiles

from loop import breakpoints, caps, drift, guard, judge
from loop import events as ev
from loop.agents import Agent, Failed, Proposal
from loop.events import AnyEvent, AnyTelemetry, Record
from loop.journal import Journal, JournalFull
from loop.judge import Judgement, More, Rules
from loop.lane import Lane
from loop.patch import EditError, apply_edits
from loop.proposer import Proposer
from loop.results import Table
from loop.state import BASELINE, Experiment, Trial, fold
from loop.study import Study, save
from loop.trials.output import clean
from loop.trials.telemetry import machine_samples
from loop.workspace import Workspace, WorkspaceError

TRIALS_AT_MOST = 3
"""So often an experiment is run on one seed when that comes to no result through no fault of its own."""

LONGEST_WAIT = 300.0
"""Seconds between two asks of an agent that keeps failing."""

MACHINE_INTERVAL = 1.0
"""Seconds between two readings of the machine."""

LIGHTER = 0.95
"""Of the incumbent's memory: what takes less than this share is simpler."""

LITTLE = 2**20
"""Bytes free on a disk that is as good as full."""

MENDING = (5.0, 300.0)
"""Seconds until a side task that failed is tried again: at first, and at most."""

Listener = Callable[[Record | AnyTelemetry], None]


class StudyMismatch(ValueError):
    """The journal was opened on other terms than the engine is asked to run."""


class Engine:
    """One study's engine. `run` is its life; what a person asks meanwhile comes through `loop.inbox`."""

    def __init__(
        self, study: Study, *, journal: Journal, workspace: Workspace, agent: Agent, experiments: int | None = None
    ) -> None:
        self.study = study
        self.state = fold(journal.records)
        journal.forget()
        self.holding = False
        """Whether it stands at a gate and waits for a person; after a pause it first ends what it is at."""
        self._journal = journal
        self._workspace = workspace
        self._agent = agent
        self._experiments = experiments
        self._listeners: list[Listener] = []
        self._writing = asyncio.Lock()
        self.deciding = asyncio.Lock()
        """Held from the look at an experiment to the verdict on it."""
        self.opened = asyncio.Event()
        """Set once the engine has said that it is there; an earlier event would count as of the run before."""
        self._wake = asyncio.Event()
        self._stopping: Literal["after", "now"] | None = None
        self.lane = Lane(study, workspace, self.state, record=self.record, publish=self._publish)
        self.proposer = Proposer(study, workspace, self.state, agent, record=self.record, publish=self._publish)
        self._table = Table()
        self._unsettled = False
        """A verdict is journalled, and the branch or the table does not show it yet."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every record and telemetry message from now on. Returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Go on until stopped or until the asked number of experiments is decided.

        Where git, the disk or the device is in the way it pauses, says so, and goes on when it is resumed.

        Raises:
            JournalError: where not even that can be written; nothing further is done then.
        """
        await self._open()
        self.opened.set()
        helpers = [
            asyncio.create_task(self._beside(self._watch_program, "watching program.md")),
            asyncio.create_task(self._beside(self._watch_machine, "reading the machine")),
        ]
        try:
            while (reason := self._end()) is None:
                if not await self._hold():
                    await self._advance_or_pause()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        await self.record(ev.EngineStopped(reason=reason))

    def stop(self, *, now: bool) -> None:
        """End after the running experiment, or as soon as what runs is ended."""
        self._stopping = "now" if now else "after"
        self._wake.set()
        self.proposer.end()

    async def _open(self) -> None:
        study, config = self.study, self.study.config
        fresh = self.state.seq == 0
        if fresh:
            await self.record(
                ev.StudyOpened(
                    tag=study.tag,
                    branch=study.branch,
                    base=await asyncio.to_thread(self._workspace.head),
                    metric=config.metric,
                    direction=config.direction,
                    budget=study.budget,
                    device=study.device,
                    command=config.command,
                    audit=config.audit,
                ),
                *([ev.GateSet(on=True)] if config.approve else []),
                *(ev.BreakpointSet(condition=condition) for condition in config.breakpoints),
            )
        await self.record(
            ev.EngineStarted(
                pid=os.getpid(),
                host=socket.gethostname(),
                agent=self._agent.name,
                version=version("labtop"),
                sandbox=self.study.sandbox,
                experiments=self._experiments,
            )
        )
        if doubt := caps.doubt(self._agent.name, config.caps, config.asking):
            await self.record(ev.Warned(text=doubt))
        if self._journal.repaired:
            await self.record(ev.Warned(text=self._journal.repaired))
        if self._workspace.cleared:
            stale = ", ".join(self._workspace.cleared)
            await self.record(ev.Warned(text=f"git locks that a dead engine left were removed: {stale}"))
        files = [config.program, *config.editable, *config.frozen]
        if fresh and (dirty := await asyncio.to_thread(self._workspace.uncommitted, files)):
            await self.record(
                ev.Warned(
                    text=f"not committed, and so not part of this study: {', '.join(dirty)} (the study is on HEAD)"
                )
            )
        await self._recover()
        await self._read_program()

    def check_terms(self) -> None:
        """Results of one study are compared with each other, so its terms cannot change on the way.

        Raises: StudyMismatch.
        """
        state, study = self.state, self.study
        if state.seq == 0:
            return
        for name, was, now in (
            ("metric", state.metric, study.config.metric),
            ("direction", state.direction, study.config.direction),
            ("budget", state.budget, study.budget),
            ("device", state.device, study.device),
            ("audit", state.audit or "none", study.config.audit or "none"),
        ):
            if was != now:
                raise StudyMismatch(
                    f"study {study.tag} was opened with {name} {was}, not {now}; results of the two "
                    f"cannot be compared. Run with the old {name}, or start another study with --tag"
                )

    async def _recover(self) -> None:
        """Do again what the journal says was decided, where the last engine may have died before doing it."""
        best, latest, measuring = self.state.best, self.state.experiments[-1:], self.state.measuring
        for experiment in latest:
            if experiment.commit:
                await asyncio.to_thread(self._workspace.record, experiment.number, experiment.commit)
        for experiment in self.state.experiments:
            trial = experiment.trial
            if trial and trial.outcome is None and experiment is not measuring and experiment.stage == "decided":
                await self.lane.end_orphan(experiment, trial)
        if best and best.commit:
            await self._move_branch(best.commit)
        if self.state.experiments:
            await asyncio.to_thread(self._table.write, self.study.results, self.state)

    def _end(self) -> str | None:
        """Why the engine should end now, or None."""
        current = self.state.current
        under_way = current is not None and current.stage in ("training", "trained")
        if self._stopping == "now" or (self._stopping == "after" and not under_way):
            return "stopped by a person"
        limit = self.state.limit
        if (
            current is None
            and self.state.measuring is None
            and not self._unsettled
            and limit is not None
            and self.state.best is not None
            and self.state.tried >= limit
        ):
            return f"{self._experiments} experiments done"
        settled = (current is None or current.stage == "proposing") and self.state.measuring is None
        if settled and not self._unsettled and self.state.best is not None:
            return caps.reached(self.state, self.study.config.caps, time.time())
        return None

    async def _hold(self) -> bool:
        """Wait for something to happen while a person holds the study. False: nothing holds it."""
        if (self.state.mode == "running" or self.state.steps) and self.state.awaiting is None:
            return False
        self._wake.clear()
        self.holding = True
        await self._wake.wait()
        self.holding = False
        return True

    async def _advance_or_pause(self) -> None:
        try:
            await self._advance()
        except JournalFull as full:
            await self.record(ev.Paused(by="engine", reason=str(full)), at_last=True)
        except (WorkspaceError, OSError) as trouble:
            # Every stage can be begun again, so a person may mend what is in the way and go on.
            reason = f"{clean(str(trouble))}. Mend that, and resume"
            no_space = os.strerror(errno.ENOSPC)
            places = (self.study.folder, self._workspace.storage)
            if no_space not in reason and min(shutil.disk_usage(place).free for place in places) < LITTLE:
                reason = f"{no_space}: {reason}"  # Git does not say why it could not write.
            await self.record(ev.Paused(by="engine", reason=reason), at_last=True)

    async def _advance(self) -> None:
        """Take the experiment under way, or a new one, one stage further."""
        if self._unsettled:
            await self._settle(move=True)
            return
        if (measuring := self.state.measuring) and measuring.trial:
            await self._measure(measuring, measuring.trial.seed)
            return
        experiment, best, config = self.state.current, self.state.best, self.study.config
        if experiment and best and experiment.stage != "proposing" and experiment.base != best.commit:
            await self._give_up(experiment, best)
            return
        match experiment.stage if experiment else "proposing":
            case "proposing" if best is None:
                await self._take_baseline()
            case "proposing" if best and config.policy == "confirm" and drift.due(self.state, config.sentinel):
                await self._measure(best, _new_seed(best))
            case "proposing":
                await self._propose()
            case "proposed" if experiment:
                await self._measure(experiment, next(iter(best.values if best else ()), config.seed))
            case "trained" if experiment:
                await self._judge(experiment)

    async def _give_up(self, experiment: Experiment, best: Experiment) -> None:
        """End what was made against a commit that is no longer the incumbent's, since its keep was undone."""
        async with self.deciding:
            if (current := self.state.current) and current.number == experiment.number:
                reason = f"made against a commit that is no longer kept; the incumbent is {best.number:04d}"
                await self.decide(ev.Decided(number=experiment.number, verdict="reject", reason=reason, by="engine"))

    def _next_number(self) -> int:
        return self.state.current.number if self.state.current else len(self.state.experiments)

    async def _take_baseline(self) -> None:
        number = self._next_number()
        head = await asyncio.to_thread(self._workspace.head)
        files = await self.proposer.files(head)
        await self.record(
            ev.ProposalStarted(number=number, base=head, agent=BASELINE, spec=self.state.spec),
            ev.Proposed(
                number=number,
                commit=head,
                hypothesis="the script as it stands, to measure everything else against",
                fingerprint=guard.fingerprint(files),
            ),
        )
        await asyncio.to_thread(self._workspace.record, number, head)

    async def _propose(self) -> None:
        assert self.state.best is not None and self.state.best.commit is not None
        number, base = self._next_number(), self.state.best.commit
        await self.record(ev.ProposalStarted(number=number, base=base, agent=self._agent.name, spec=self.state.spec))
        current = self.state.current
        if self._stopping or current is None or current.number != number or self.state.best.commit != base:
            return  # A person was quicker, and there was no turn yet to end.
        outcome = await self.proposer.turn(number, base)
        if outcome is None:
            return
        if isinstance(outcome, Failed):
            wait = outcome.wait or min(2.0**self.state.failures, LONGEST_WAIT)
            await self._proposal_failed(number, outcome.reason, wait, away=outcome.away)
            return
        try:
            await self._accept(number, base, outcome)
        except (EditError, guard.Refused) as refusal:
            self.proposer.feedback.append(str(refusal))
            await self._proposal_failed(number, str(refusal), 0.0)

    async def _accept(self, number: int, base: str, proposal: Proposal) -> None:
        """Guard, commit and journal a proposal. Raises: EditError, guard.Refused."""
        changed = apply_edits(await self.proposer.files(base), proposal.edits)
        proposed = await self.proposer.prepare(
            number, base, changed, hypothesis=clean(proposal.hypothesis), effect=clean(proposal.expected_effect)
        )
        async with self.deciding:
            if self.state.experiments[number].stage == "decided":
                return
            await self._propose_for_good(proposed)
        self.proposer.feedback.clear()

    async def amend(self, experiment: Experiment, diff: str) -> None:
        """Put a person's unified diff in the place of the patch of an experiment that was not trained yet.

        Raises: EditError, guard.Refused, WorkspaceError; then everything stays as it was.
        """
        changed = await asyncio.to_thread(self._workspace.patched, experiment.base, diff)
        if not changed:
            raise EditError("it changes nothing")
        proposed = await self.proposer.prepare(
            experiment.number,
            experiment.base,
            changed,
            hypothesis=experiment.hypothesis,
            effect=experiment.expected_effect,
            by="person",
        )
        await self._propose_for_good(proposed)

    async def _propose_for_good(self, proposed: ev.Proposed) -> None:
        await self.record(proposed)
        await asyncio.to_thread(self._workspace.record, proposed.number, proposed.commit)
        if self.state.breakpoints:
            diff = await asyncio.to_thread(self.study.diff(proposed.number).read_text, encoding="utf-8")
            await self._break(proposed.number, lambda condition: breakpoints.of_proposal(condition, diff))

    async def _break(self, number: int, finds: Callable[[str], str | None]) -> None:
        """Pause where a breakpoint finds something."""
        for condition in self.state.breakpoints:
            if found := finds(condition):
                reason = f"breakpoint {condition!r}: {number:04d}, {found}"
                await self.record(ev.Paused(by="engine", reason=clean(reason)))
                return

    async def _proposal_failed(self, number: int, reason: str, wait: float, *, away: bool = False) -> None:
        reason = clean(reason)
        await self.record(ev.ProposalFailed(number=number, reason=reason, wait=wait, away=away))
        if not away and self.state.failures >= self.study.config.max_failures:
            await self.record(
                ev.Paused(
                    by="engine",
                    reason=f"{self.state.failures} proposals in a row came to nothing; the last: {reason}",
                )
            )
            self.proposer.feedback.clear()
        elif wait:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _measure(self, experiment: Experiment, seed: int) -> None:
        """One trial of the experiment, new or left by a dead engine, with its audit; or the audit that is still due."""
        number, trial = experiment.number, experiment.trial
        if trial is None or not self.state.needs_audit(trial):
            await self.lane.train(experiment, seed)
        if (waiting := self.state.measuring) and waiting.number == number and self._stopping != "now":
            await self.lane.audit(waiting)
        if (waiting := self.state.measuring) is None or waiting.number != number:
            await self.lane.clear(self.state.experiments[number])
        best = self.state.best
        if best and best.number == number and best.trial and best.trial.counts:
            await self._look_for_drift(best)
        if self.state.current is None or self.state.current.number != number:
            # The row of what was decided before shows what is known only now.
            await asyncio.to_thread(self._table.write, self.study.results, self.state)

    async def _look_for_drift(self, best: Experiment) -> None:
        """Say where the incumbent, measured again, is not what it was; and where it stays so, count from there."""
        title = f"{best.number:04d}, the incumbent,"
        if (share := drift.slower(best)) is not None:
            said = f"the machine is slower: {title} made {100 * share:.0f} % fewer tokens a second"
            await self.record(ev.Warned(text=f"{said} than before; does somebody share it?"))
        off, twice = drift.odd(self.state, best)
        if off is None:
            return
        way = "better" if (off < 0) == (self.state.direction == "minimize") else "worse"
        how = f"{title} came out {abs(off):.1f} standard errors {way} than before"
        if twice:
            reason = f"{how}, twice: the machine has changed, and only what was measured since counts"
            since = ev.Rebased(number=best.number, trial=best.counted[-2].trial, reason=reason)
            await self.record(since, ev.Warned(text=reason))
        else:
            await self.record(ev.Warned(text=f"{how}, measured again; it is looked at once more"))

    async def _judge(self, experiment: Experiment) -> None:
        """A verdict, or the trial that is wanted before there can be one."""
        best, trial = self.state.best, experiment.trial
        assert trial is not None
        again = sum(1 for other in experiment.recent if other.seed == trial.seed) < TRIALS_AT_MOST
        verdict: Judgement | More
        if trial.outcome in ("lost", "killed") and again:
            await self._measure(experiment, trial.seed)
            return
        if trial.outcome == "crash" and await self._repair(experiment, trial):
            return
        if trial.outcome != "ok":
            verdict = judge.crashed(trial.reason)
        elif trial.colour == "red":
            verdict = Judgement("discard", f"its score does not count: {'; '.join(trial.findings)}")
        elif trial.disturbed:
            # The clock of a frozen process goes on, so that what it measured is no measurement.
            if again:
                await self._measure(experiment, trial.seed)
                return
            verdict = Judgement("discard", f"it was frozen by a pause in each of {TRIALS_AT_MOST} trials")
        else:
            verdict = self._compare(experiment, best)
        if isinstance(verdict, More):
            await self._run_more(verdict, experiment, best)
            return
        reason = "; ".join([verdict.reason, *self._remarks(experiment, best)])
        async with self.deciding:
            if (current := self.state.current) is None or current.number != experiment.number:
                return  # A person was quicker.
            await self.decide(
                ev.Decided(
                    number=experiment.number,
                    verdict=verdict.verdict,
                    reason=reason,
                    value=None if verdict.verdict == "crash" else experiment.mean,
                    delta=verdict.delta,
                    sigma=verdict.sigma,
                    low=verdict.low,
                    high=verdict.high,
                )
            )
        if self.state.best is None:
            said = f"the unchanged script does not run: {verdict.reason}. Mend it, commit, and resume"
            await self.record(ev.Paused(by="engine", reason=said))

    async def _repair(self, experiment: Experiment, trial: Trial) -> bool:
        """Let the agent mend what crashed. False: it is not to, or could not."""
        number, agent, attempt = experiment.number, self._agent, experiment.repairs + 1
        wanted = agent.repairs and experiment.agent == agent.name and attempt <= self.study.config.repairs
        if not wanted or self._stopping or experiment.commit is None or self.state.best is None:
            return False
        if self.proposer.cap_reached(ev.AgentUsed(number=number, agent=agent.name)):
            return False
        await self.record(ev.RepairStarted(number=number, attempt=attempt, agent=agent.name))
        experiment = self.state.experiments[number]
        if self._stopping or experiment.stage == "decided":
            return True
        outcome = await self.proposer.turn(number, experiment.commit or "", experiment)
        if outcome is None:
            return True
        if isinstance(outcome, Failed):
            if outcome.away:
                await self._proposal_failed(number, outcome.reason, outcome.wait, away=True)
                return True
            await self.record(ev.Warned(text=f"{number:04d} is not repaired: {clean(outcome.reason)}"))
            return False
        crashed = await self.proposer.files(experiment.commit or "")
        before = await self.proposer.files(experiment.base)
        try:
            after = {**crashed, **apply_edits(crashed, outcome.edits)}
            proposed = await self.proposer.prepare(
                number,
                experiment.base,
                {path: text for path, text in after.items() if text != before[path]},
                hypothesis=experiment.hypothesis,
                effect=experiment.expected_effect,
                repairs=experiment,
            )
        except (EditError, guard.Refused) as refusal:
            await self.record(ev.Warned(text=f"{number:04d} is not repaired: {clean(str(refusal))}"))
            return False
        async with self.deciding:
            if self.state.experiments[number].stage != "decided":
                await self._propose_for_good(proposed)
        return True

    def _compare(self, experiment: Experiment, best: Experiment | None) -> Judgement | More:
        config, trial = self.study.config, experiment.trial
        assert trial is not None
        used = {
            **trial.summary,
            "wall_seconds": trial.wall_seconds,
            "changed_lines": float(experiment.added + experiment.removed),
        }
        if best and (passed := judge.over_limits(used, config.at_most)):
            return Judgement("discard", f"over a limit of the settings: {passed}")
        rules = Rules(
            policy=config.policy,
            direction=self.state.direction,
            margin=config.margin,
            false_keep=config.false_keep,
            replicates=config.replicates,
            cap=config.confirmations,
            simplify=config.simplify,
        )
        values = best.values if best else {}
        return judge.judge(experiment.values, values, self.state.noise, rules, simpler=_simpler(experiment, best))

    async def _run_more(self, wanted: More, experiment: Experiment, best: Experiment | None) -> None:
        if wanted.of == "candidate" or best is None:
            await self._measure(experiment, wanted.seed)
            return
        failed = [trial for trial in best.trials if trial.seed == wanted.seed and not trial.counts]
        if len(failed) < TRIALS_AT_MOST:
            await self._measure(best, wanted.seed)
            return
        why = failed[-1].reason or "; ".join(failed[-1].findings) or "it was frozen by a pause"
        said = f"{best.number:04d}, the incumbent, comes to no value on seed {wanted.seed}: {why}"
        await self.record(ev.Paused(by="engine", reason=f"{said}. Mend that, or reject {experiment.number:04d}"))

    def _remarks(self, experiment: Experiment, best: Experiment | None) -> list[str]:
        """What a person should know beside the verdict."""
        trial, base = experiment.trial, best.trial if best else None
        said = [trial.reason] if trial and trial.outcome == "ok" and trial.reason else []
        if trial and base and len(experiment.changes) == 1 and experiment.added <= 1:
            moved = judge.side_effects(trial.summary, base.summary)
            if moved:
                said.append(f"changed one thing, {len(moved)} moved: {', '.join(moved)}")
        return said

    async def decide(self, decision: ev.Decided) -> None:
        """Journal a verdict, then act on it."""
        await self.record(decision)
        self._unsettled = True
        await self._settle(move=decision.verdict == "keep")
        experiment = self.state.experiments[decision.number]
        if decision.by == "judge" and experiment.agent != BASELINE:
            await self._break(
                decision.number, lambda condition: breakpoints.of_verdict(condition, experiment, self.state)
            )

    async def undo(self, undone: ev.Undone) -> None:
        """Journal that the latest verdict is taken back, then act on it."""
        await self.record(undone)
        self._unsettled = True
        await self._settle(move=True)

    async def _settle(self, *, move: bool) -> None:
        """Bring the branch, where it has to `move`, and the table up to the latest verdict."""
        if move and self.state.best and self.state.best.commit:
            await self._move_branch(self.state.best.commit)
        await asyncio.to_thread(self._table.write, self.study.results, self.state)
        self._unsettled = False

    async def _move_branch(self, commit: str) -> None:
        head = await asyncio.to_thread(self._workspace.branch_head)
        if head is None:
            await asyncio.to_thread(self._workspace.create_branch, commit)
        elif head != commit:
            await asyncio.to_thread(self._workspace.advance, commit, head)

    async def _beside(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """Run a side task; its failure is told and costs nothing else, and it is begun again."""
        wait, longest = MENDING
        while True:
            try:
                await work()
            except Exception as error:
                said = f"{what} failed, again in {wait:.0f} s: {type(error).__name__}: {clean(str(error))}"
                with contextlib.suppress(JournalFull):
                    await self.record(ev.Warned(text=said))
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)

    async def _watch_program(self) -> None:
        # The folder is watched, not the file: editors save by replacing it.
        path = self.study.program
        async for _ in watchfiles.awatch(
            path.parent, recursive=False, watch_filter=lambda _, changed: Path(changed).name == path.name
        ):
            await self._read_program()

    async def _read_program(self) -> None:
        """Keep a copy of program.md at each version that any experiment may have been briefed with."""
        try:
            text = await asyncio.to_thread(self.study.program.read_text, encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return  # Between an editor's remove and its rename; where it stays away, the last version holds.
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        if digest != self.state.spec_digest:
            await asyncio.to_thread(save, self.study.spec(self.state.spec + 1), text)
            await self.record(ev.SpecChanged(version=self.state.spec + 1, digest=digest))

    async def _watch_machine(self) -> None:
        async for sample in machine_samples(MACHINE_INTERVAL):
            self.lane.machine = sample
            self._publish(sample)

    async def record(self, *happened: AnyEvent, at_last: bool = False) -> None:
        """Make events durable, then true, then known. `at_last`: with the room held back for a full disk."""
        append = self._journal.append_at_last if at_last else self._journal.append
        async with self._writing:
            for record in await asyncio.to_thread(append, *happened):
                self.state.apply(record)
                self._publish(record)
        self._wake.set()

    def _publish(self, message: Record | AnyTelemetry) -> None:
        for listener in self._listeners:
            listener(message)


def _simpler(experiment: Experiment, best: Experiment | None) -> bool:
    """Fewer lines, or clearly less memory with no more lines."""
    if best is None or experiment.removed > experiment.added:
        return best is not None
    own, its = experiment.memory_gb, best.memory_gb
    return bool(own and its and own < LIGHTER * its and experiment.added <= experiment.removed)


def _new_seed(best: Experiment) -> int:
    return max(trial.seed for trial in best.trials) + 1
