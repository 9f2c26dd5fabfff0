"""A lane: one device, and the trial or the audit that runs on it. What it comes to is for the engine to judge."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
from msgspec.structs import replace

from loop import audit
from loop import events as ev
from loop.audit import Finding
from loop.events import AnyEvent, AnyTelemetry, Machine, TrialFinished
from loop.state import BASELINE, Experiment, StudyState, Trial
from loop.study import Study, socket_path
from loop.trials import sandbox
from loop.trials.local import UNWRITABLE, LocalTrial, TrialSpec
from loop.trials.telemetry import still_held
from loop.workspace import Workspace

FREEING = 30.0
"""Seconds that a device has to give back a trial's memory before no other trial is sent there."""

ANSWERING = 10.0
"""Seconds that its driver has to tell what it holds before the first trial."""

LOOK = 1.0
"""Seconds between two looks at whether it has."""

AUDIT_TIMEOUT = 900.0
"""Seconds of wall time, beside the budget's own, in which an audit has to come to its end."""


class Lane:
    """Runs trials and audits, one at a time. `pause`, `resume` and `kill` act on what runs, from any other task.

    `record` journals events, and `publish` shows what is not journalled.
    """

    def __init__(
        self,
        study: Study,
        workspace: Workspace,
        state: StudyState,
        *,
        record: Callable[[AnyEvent], Awaitable[None]],
        publish: Callable[[AnyTelemetry], None],
    ) -> None:
        self._study = study
        self._workspace = workspace
        self._state = state
        self._record = record
        self._publish = publish
        self._running: LocalTrial | None = None
        self._ready = asyncio.Event()
        if not state.measuring:
            self._ready.set()  # Else there will be something that a dead engine left.
        self.machine: Machine | None = None
        """The latest readings, which somebody else takes."""
        self._idle_machine: Machine | None = None
        """Those before the first trial."""

    async def train(self, experiment: Experiment, seed: int) -> None:
        """Run a new trial of the experiment to its end, or the one that a dead engine left, running or ended."""
        assert experiment.commit is not None
        self._ready.clear()
        try:
            self._running = run = await self._launch(experiment, seed)
            self._ready.set()
            async for message in run.follow():
                self._publish(message)
        finally:
            self._running = None
            self._ready.set()  # Whoever waits for a trial to act on must learn that there is none.
        result = run.result()
        await self._record(result)
        if result.outcome == "lost" and result.reason.startswith(UNWRITABLE):
            await self._record(ev.Paused(by="engine", reason=f"{result.reason}. Mend that, and resume"))
        elif self._state.device.startswith("cuda"):
            await self._wait_for_device(experiment.number)

    async def audit(self, experiment: Experiment) -> None:
        """Have the experiment's latest trial measured by what its agent cannot touch."""
        assert experiment.trial is not None
        spec = self.spec(experiment, experiment.trial)
        self._ready.clear()
        try:
            tampered = await asyncio.to_thread(self._tampered, experiment, spec.source)
            self._running = run = await self._launch_audit(experiment, spec)
            self._ready.set()
            lines: list[str] = []
            async for message in run.follow():
                if isinstance(message, ev.LogLines):
                    lines += message.lines
                self._publish(message)
        finally:
            self._running = None
            self._ready.set()
        waiting = self._state.measuring
        if waiting is None or waiting.number != experiment.number or waiting.trial is None:
            return  # It was decided meanwhile.
        if run.result().outcome in ("killed", "lost"):
            await asyncio.to_thread(shutil.rmtree, run.spec.folder, ignore_errors=True)  # And is begun anew.
        else:
            await self._record(self._audited(experiment.number, waiting.trial, run, lines, tampered))

    async def clear(self, experiment: Experiment) -> None:
        """Remove what nobody needs of its latest trial any more: the source, what was handed over, the audit's own."""
        assert experiment.trial is not None
        spec = self.spec(experiment, experiment.trial)
        for folder in (spec.source, spec.handover, spec.folder / "audit"):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether a trial or an audit runs."""
        return self._running is not None

    @property
    def busy(self) -> bool:
        """Whether one runs, or is about to."""
        return self.running or not self._ready.is_set()

    async def pause(self) -> bool | None:
        """Make the trial stand still; see `LocalTrial.pause`. None: none runs."""
        await self._ready.wait()
        return await self._running.pause() if self._running else None

    async def resume(self) -> bool:
        """Let the trial go on. False: none runs."""
        if self._running is None:
            return False
        await self._running.resume()
        return True

    async def kill(self, reason: str) -> bool:
        """End what runs, every process of it. False: nothing does."""
        await self._ready.wait()
        if self._running is None:
            return False
        await self._running.kill(reason)
        return True

    async def end_orphan(self, experiment: Experiment, trial: Trial) -> None:
        """End the trial of an experiment that was decided while no engine was there to end it."""
        orphan = await LocalTrial.adopt(self.spec(experiment, trial))
        if orphan is None:
            reason = "it never started"
            finished = TrialFinished(number=experiment.number, trial=trial.trial, outcome="lost", reason=reason)
        else:
            await orphan.kill(experiment.reason)
            async for message in orphan.follow():
                self._publish(message)
            finished = orphan.result()
        await self._record(finished)

    def spec(self, experiment: Experiment, trial: Trial) -> TrialSpec:
        """How a trial is run: the same for the engine that starts it and the one that adopts it."""
        study, config, limits = self._study, self._study.config, self._study.config.limits
        number, folder = experiment.number, self._study.trial(experiment.number, trial.trial)
        return TrialSpec(
            number=number,
            trial=trial.trial,
            command=config.command,
            source=folder / "source",
            folder=folder,
            log=study.log(number, trial.trial),
            metrics=study.metrics(number, trial.trial),
            metric=config.metric,
            device=trial.device,
            seed=trial.seed,
            budget=trial.budget,
            timeout=config.timeout_for(trial.budget),
            environment=config.environment,
            silence=config.silence,
            sandbox=study.sandbox,
            hidden=(study.root, socket_path(study.root, study.tag).parent),
            readable=config.readable_in(study.root),
            masked=config.hidden_in(study.root),
            audited=bool(self._state.audit),
            network=config.network,
            memory=int((limits.memory_gb or 0) * 2**30) or int(0.9 * psutil.virtual_memory().total),
            disk=int(limits.disk_gb * 2**30),
            processes=limits.processes,
            compiled=study.folder / "compiled",
            baseline=experiment.agent == BASELINE,
        )

    async def _launch(self, experiment: Experiment, seed: int) -> LocalTrial:
        assert experiment.commit is not None
        if (left := experiment.trial) and left.outcome is None:
            spec = self.spec(experiment, left)
            if (adopted := await LocalTrial.adopt(spec)) is not None:
                # Whoever paused it is gone with the engine that was asked.
                await adopted.resume()
                if left.paused:
                    await self._record(ev.TrialResumed(number=experiment.number, trial=left.trial))
                return adopted
        else:
            await self._record(
                ev.TrialStarted(
                    number=experiment.number,
                    trial=len(experiment.trials) + 1,
                    device=self._study.device,
                    seed=seed,
                    budget=self._study.budget,
                    sandbox=self._study.sandbox,
                )
            )
            latest = self._state.experiments[experiment.number].trial
            assert latest is not None
            spec = self.spec(experiment, latest)
        await asyncio.to_thread(self._workspace.export, experiment.commit, spec.source)
        if self._state.device.startswith("cuda") and self._idle_machine is None:
            await self._look_at_idle_device()
        return await LocalTrial.launch(spec)

    def _tampered(self, experiment: Experiment, source: Path) -> list[str]:
        """The frozen files that are not in `source` as the experiment's commit has them."""
        assert experiment.commit is not None
        found = []
        for path in self._study.config.frozen:
            file, text = source / path, self._workspace.read(experiment.commit, path)
            if text is not None and (file.is_symlink() or not file.is_file() or file.read_bytes() != text.encode()):
                found.append(path)
        return found

    async def _launch_audit(self, experiment: Experiment, trial: TrialSpec) -> LocalTrial:
        folder, frozen = trial.folder / "audit", self._state.baseline or experiment
        assert frozen.commit is not None
        # What the audit runs of the trial's sees what the trial saw, and what it has handed over. It writes nothing:
        # two runs of one model shall not be able to agree on their answers.
        shown = (*trial.readable, trial.handover.resolve())
        walls = replace(trial.walls(folder.resolve()), readable=shown, sealed=True)
        argv, _ = sandbox.wrap(trial.sandbox, walls, [sys.executable])
        spec = replace(
            trial,
            command=self._state.audit,
            source=folder / "source",
            folder=folder,
            log=self._study.audit_log(trial.number, trial.trial),
            metrics=folder / "metrics.jsonl",
            timeout=AUDIT_TIMEOUT + trial.budget,
            environment={
                **trial.environment,
                "LABTOP_HANDOVER": str(trial.handover),
                "LABTOP_WRAP": json.dumps(argv[:-1]),
            },
            sandbox="off",
            audited=False,
            compiled=None,
        )
        if (adopted := await LocalTrial.adopt(spec)) is not None:
            return adopted
        await asyncio.to_thread(self._workspace.export, frozen.commit, spec.source)
        return await LocalTrial.launch(spec)

    def _audited(
        self, number: int, trial: Trial, run: LocalTrial, lines: Sequence[str], tampered: Sequence[str]
    ) -> ev.Audited:
        """What an audit that ran to its end comes to."""
        report = audit.read(lines, run.printed, self._study.config.metric)
        ended = run.result()
        baseline = self._state.baseline
        findings = audit.own_findings(
            trial,
            report,
            baseline=baseline.trials if baseline and baseline.number != number else (),
            tampered=tampered,
            direction=self._state.direction,
        )
        if ended.exit_code != 0 or report.colour is None:
            # A measurement that does not come about is no excuse.
            findings.append(Finding("red", f"the audit came to nothing: {ended.reason or 'it named no colour'}"))
        elif report.value is None and report.colour != "red":
            findings.append(Finding("red", f"the audit printed no {self._study.config.metric}"))
        return ev.Audited(
            number=number,
            trial=trial.trial,
            colour=audit.worst(report.colour or "red", findings),
            value=report.value,
            holdout=report.holdout,
            findings=(*(finding.text for finding in findings), *report.findings),
        )

    async def _look_at_idle_device(self) -> None:
        """What the device holds before any trial; a driver that does not answer is not waited for long."""
        deadline = time.monotonic() + ANSWERING
        while not (self.machine and self.machine.devices) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
        self._idle_machine = self.machine

    async def _wait_for_device(self, number: int) -> None:
        """Until the device has given back what the trial took; a process that hangs in the driver may never do so."""
        deadline = time.monotonic() + FREEING
        while held := still_held(self._idle_machine, self.machine):
            if time.monotonic() > deadline:
                self._idle_machine = None  # A person has looked at it by the time this goes on.
                said = f"{held} {FREEING:.0f} s after {number:04d} ended; free it (nvidia-smi shows whose), and resume"
                await self._record(ev.Paused(by="engine", reason=said))
                return
            await asyncio.sleep(LOOK)
