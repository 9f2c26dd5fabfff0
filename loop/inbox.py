"""The one inbox: what a person asks of the engine, and what became of it in one sentence."""

from __future__ import annotations

import asyncio

from loop import breakpoints, commands, guard, refusals
from loop import events as ev
from loop.commands import AnyCommand, Reply
from loop.engine import Engine
from loop.patch import EditError
from loop.state import Experiment
from loop.workspace import WorkspaceError


class Inbox:
    """Carries out commands, from any number of viewers at once, beside the engine's own life."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopper: asyncio.Task[Reply] | None = None

    async def do(self, command: AnyCommand) -> Reply:
        """Carry out a command, or say why not."""
        await self._engine.opened.wait()
        match command:
            case commands.Pause():
                return await self._pause()
            case commands.Resume():
                return await self._resume()
            case commands.Step():
                return await self._step()
            case commands.Reject():
                return await self._reject(command.number, command.why)
            case commands.Keep():
                return await self._keep(command.number, command.why)
            case commands.Undo():
                return await self._undo(command.number, command.why)
            case commands.Gate():
                return await self._gate(command.on)
            case commands.Approve():
                return await self._approve(command.number)
            case commands.Permit():
                return await self._permit(command.allow, command.what)
            case commands.Amend():
                return await self._amend(command.diff, command.number)
            case commands.Break():
                return await self._break(command.condition)
            case commands.Unbreak():
                return await self._unbreak(command.condition)
            case commands.Note():
                return await self._note(command.text, command.number)
            case commands.Stop():
                return await self._stop(now=command.now)

    def stop_soon(self) -> None:
        """Stop without waiting for the training under way, from a signal handler."""
        self._stopper = asyncio.create_task(self.do(commands.Stop(now=True)))

    async def _pause(self) -> Reply:
        engine, training = self._engine, self._training
        if engine.state.mode == "paused" and (training is None or _paused(training)):
            return Reply(ok=True, text="it is paused already; `labtop resume` goes on")
        await engine.record(ev.Paused())
        if training is None:
            return Reply(ok=True, text="paused: it waits before its next stage")
        cooperative = await engine.lane.pause()
        if cooperative is None:
            return Reply(ok=True, text=f"paused: {training.number:04d} had just ended its training")
        if still := self._training:
            await engine.record(ev.TrialPaused(number=still.number, trial=len(still.trials), cooperative=cooperative))
        how = (
            "at a step, its budget clock stopped" if cooperative else "frozen as a whole, since it has no clock of ours"
        )
        return Reply(ok=True, text=f"paused: the training of {training.number:04d} waits, {how}")

    @property
    def _training(self) -> Experiment | None:
        """The experiment that is in training."""
        measuring = self._engine.state.measuring
        return measuring if measuring and measuring.trial and measuring.trial.outcome is None else None

    async def _resume_trial(self) -> bool:
        training = self._training
        if training is None or not _paused(training) or not await self._engine.lane.resume():
            return False
        await self._engine.record(ev.TrialResumed(number=training.number, trial=len(training.trials)))
        return True

    async def _resume(self) -> Reply:
        if self._engine.state.mode == "running":
            return Reply(ok=True, text="it is running already")
        await self._engine.record(ev.Resumed())
        if await self._resume_trial():
            return Reply(ok=True, text="the training goes on")
        waiting = self._engine.state.awaiting
        return Reply(ok=True, text=f"{waiting.number:04d} waits for approval" if waiting else "it goes on")

    async def _step(self) -> Reply:
        engine = self._engine
        if (why := refusals.step(engine.state)) is not None:
            return Reply(ok=False, text=why)
        experiment = engine.state.current
        busy = engine.proposer.busy or engine.lane.busy
        await engine.record(ev.Stepped(gates=0 if busy else 1))
        await self._resume_trial()
        if busy:
            return Reply(ok=True, text="it finishes what it is at, and then waits")
        stage = experiment.stage if experiment else "proposing"
        what = {"proposing": "one proposal", "proposed": "one training", "training": "one training"}.get(
            stage, "one verdict, or the training that it wants first"
        )
        return Reply(ok=True, text=f"{what}, and then it waits")

    async def _reject(self, asked: int | None, why: str) -> Reply:
        engine = self._engine
        async with engine.deciding:
            if (refused := refusals.reject(engine.state, asked)) is not None:
                return Reply(ok=False, text=refused)
            experiment, measuring = engine.state.current, engine.state.measuring
            assert experiment is not None
            number = experiment.number
            await engine.decide(
                ev.Decided(number=number, verdict="reject", reason=why, by="person", value=experiment.mean)
            )
        engine.proposer.end()
        if experiment.stage == "proposing":
            return Reply(ok=True, text=f"rejected {number:04d} while it was being proposed")
        if measuring and await engine.lane.kill(f"rejected: {why}"):
            return Reply(ok=True, text=f"rejected {number:04d}; its training has ended, every process of it")
        return Reply(ok=True, text=f"rejected {number:04d}")

    async def _keep(self, number: int | None, why: str) -> Reply:
        engine = self._engine
        async with engine.deciding:
            state = engine.state
            if number is None:
                number = max((one.number for one in state.experiments if one.mean is not None), default=None)
            if (refused := refusals.keep(state, number)) is not None:
                return Reply(ok=False, text=refused)
            assert number is not None and state.best is not None and state.best.value is not None
            value, measuring = state.experiments[number].mean, state.measuring
            assert value is not None
            delta = value - state.best.value
            await engine.decide(
                ev.Decided(number=number, verdict="keep", reason=why, by="person", value=value, delta=delta)
            )
        engine.proposer.end()
        if measuring:
            await engine.lane.kill(f"{number:04d} was kept by hand")
        return Reply(ok=True, text=f"kept {number:04d}; {engine.study.branch} stands on it")

    async def _undo(self, asked: int | None, why: str) -> Reply:
        engine = self._engine
        async with engine.deciding:
            if (refused := refusals.undo(engine.state, asked)) is not None:
                return Reply(ok=False, text=refused)
            assert engine.state.before is not None
            number, measuring = engine.state.before.number, engine.state.measuring
            verdict = engine.state.experiments[number].verdict
            await engine.undo(ev.Undone(number=number, why=why))
        engine.proposer.end()
        if verdict != "keep":
            return Reply(ok=True, text=f"{number:04d} is no {verdict} any more; it is run again")
        if measuring:
            await engine.lane.kill(f"{number:04d}, which it was measured against, is no longer kept")
        best = engine.state.best
        stands = f"{engine.study.branch} stands on {best.number:04d} again" if best else "there is no incumbent"
        return Reply(ok=True, text=f"{number:04d} is no longer kept; {stands}")

    async def _gate(self, on: bool) -> Reply:
        if self._engine.state.approving != on:
            await self._engine.record(ev.GateSet(on=on))
        if on:
            return Reply(ok=True, text="each proposal waits for `labtop approve` before it trains")
        await self._engine.proposer.answer(False)
        return Reply(ok=True, text="proposals train without approval")

    async def _approve(self, number: int | None) -> Reply:
        engine = self._engine
        async with engine.deciding:
            if (refused := refusals.approve(engine.state, number)) is not None:
                return Reply(ok=False, text=refused)
            waiting = engine.state.awaiting
            assert waiting is not None
            await engine.record(ev.Approved(number=waiting.number))
        held = engine.state.mode == "paused" and not engine.state.steps
        return Reply(ok=True, text=f"{waiting.number:04d} may train" + (", once the study is resumed" if held else ""))

    async def _permit(self, allow: bool, what: str) -> Reply:
        asked = self._engine.state.asked
        if (refused := refusals.permit(self._engine.state, what)) is not None:
            return Reply(ok=False, text=refused)
        if not await self._engine.proposer.answer(allow):
            return Reply(ok=False, text="it was answered a moment ago")
        return Reply(ok=True, text=f"{'allowed, once' if allow else 'refused'}: {asked}")

    async def _amend(self, diff: str, number: int | None) -> Reply:
        engine = self._engine
        async with engine.deciding:
            if (refused := refusals.approve(engine.state, number)) is not None:
                return Reply(ok=False, text=refused)
            waiting = engine.state.awaiting
            assert waiting is not None
            try:
                await engine.amend(waiting, diff)
            except (EditError, guard.Refused, WorkspaceError) as error:
                return Reply(ok=False, text=f"the patch of {waiting.number:04d} stays as it was: {error}")
        return Reply(ok=True, text=f"{waiting.number:04d} has your patch, and waits for approval")

    async def _break(self, condition: str) -> Reply:
        condition = " ".join(condition.split())
        try:
            breakpoints.parse(condition)
        except ValueError as error:
            return Reply(ok=False, text=str(error))
        await self._engine.record(ev.BreakpointSet(condition=condition))
        return Reply(ok=True, text=f"the study pauses when: {condition}")

    async def _unbreak(self, condition: str) -> Reply:
        condition, known = " ".join(condition.split()), self._engine.state.breakpoints
        if condition and condition not in known:
            there = f"there are: {'; '.join(known)}" if known else "there is none"
            return Reply(ok=False, text=f"no breakpoint says {condition!r}; {there}")
        gone = [condition] if condition else [*known]
        if gone:
            await self._engine.record(*(ev.BreakpointCleared(condition=one) for one in gone))
        return Reply(ok=True, text=f"no longer a breakpoint: {'; '.join(gone)}" if gone else "there was no breakpoint")

    async def _note(self, text: str, number: int | None) -> Reply:
        if number is not None and not 0 <= number < len(self._engine.state.experiments):
            return Reply(ok=False, text=f"there is no experiment {number:04d}")
        await self._engine.record(ev.Noted(text=text, number=number))
        where = "" if number is None else f" beside {number:04d}"
        return Reply(ok=True, text=f"noted{where}; the agent reads it in its next briefing")

    async def _stop(self, *, now: bool) -> Reply:
        engine = self._engine
        engine.stop(now=now)
        if measuring := engine.state.measuring:
            if not now:
                return Reply(ok=True, text=f"it ends after {measuring.number:04d}; `labtop stop --now` does not wait")
            await engine.lane.kill("the engine was stopped")
            return Reply(ok=True, text=f"ended; the next engine runs {measuring.number:04d} again")
        return Reply(ok=True, text="ended")


def _paused(experiment: Experiment) -> bool:
    return experiment.trial is not None and experiment.trial.paused
