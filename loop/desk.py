"""The agent's desk: what it is told, what it may look up and try in its turn, and the folder that it may work in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from loop import caps, failures
from loop.agents import Known
from loop.archive import Archive
from loop.briefing import Briefing, Crash, Story, brief
from loop.failures import patch_mark
from loop.patch import Edit, apply_edits, unified_diff
from loop.state import Experiment, StudyState
from loop.study import Study
from loop.workspace import Workspace

NEAR = 6
"""So many failures at most are told in full."""

Guard = Callable[[Mapping[str, str]], str]
"""Refuses what may not be run, path to new text; else gives its fingerprint."""


Permit = Callable[[str], Awaitable[bool]]
"""Puts to a person what an agent wants to do."""


class Desk:
    """Of one turn for experiment `number`, made against `base`, whose editable `files` it changes."""

    def __init__(
        self,
        study: Study,
        state: StudyState,
        archive: Archive,
        workspace: Workspace,
        *,
        number: int,
        base: str,
        files: Mapping[str, str],
        feedback: Sequence[str],
        guard: Guard,
        permit: Permit,
    ) -> None:
        self._study = study
        self._state = state
        self._archive = archive
        self._workspace = workspace
        self._number = number
        self._base = base
        self._files = files
        self._feedback = feedback
        self._guard = guard
        self._permit = permit
        self._told = study.config.repeats == "rerun"

    async def brief(
        self,
        *,
        program: str,
        context: Mapping[str, str],
        baseline_files: Mapping[str, str],
        crashed: Experiment | None = None,
    ) -> Briefing:
        """The briefing that the turn begins with."""
        state, crash = self._state, None
        if crashed is not None:
            case = await asyncio.to_thread(self._archive.case, crashed)
            reason = crashed.trial.reason if crashed.trial else ""
            crash = Crash(reason, case.tail, crashed.repairs, self._study.config.repairs)
        return brief(
            state,
            number=self._number,
            program=program,
            files=self._files,
            context=context,
            baseline_files=baseline_files,
            feedback=self._feedback,
            left=caps.left(state, self._study.config.caps, time.time()),
            crash=crash,
        )

    async def nearest_failures(self) -> list[Story]:
        """See `loop.agents.Desk`."""
        return await asyncio.to_thread(self._nearest)

    def _nearest(self) -> list[Story]:
        state, known = self._state, self._archive.marks(self._state)
        wanted = failures.focus(state, known, self._files, [*state.notes[-3:], *self._feedback])
        return [(one, self._archive.case(one)) for one in failures.nearest(state, known, wanted, NEAR)]

    async def experiment(self, number: int) -> str:
        """See `loop.agents.Desk`."""
        known = self._state.experiments
        if not 0 <= number < len(known) or known[number].stage != "decided":
            raise ValueError(f"there is no experiment {number} that was decided; there are 0 to {self._number - 1}")
        return self._tell(known[number], await asyncio.to_thread(self._archive.case, known[number]))

    def _tell(self, experiment: Experiment, case: failures.Case) -> str:
        lower = self._state.direction == "minimize"
        return failures.tell(experiment, case, self._state.noise, better_is_lower=lower)

    async def check(self, edits: Sequence[Edit]) -> None:
        """See `loop.agents.Desk`."""
        changed = apply_edits(self._files, edits)
        await asyncio.to_thread(self._guard, changed)
        mark = patch_mark(unified_diff(self._files, changed))
        earlier = await asyncio.to_thread(self._archive.latest, self._state, mark)
        if earlier is None or self._told or earlier.verdict == "keep":
            return
        self._told = True
        raise Known(
            f"This very patch was tried, against an earlier incumbent:\n\n{await self.experiment(earlier.number)}\n\n"
            "Propose something else; or, where you have a reason to think that it will do better now, say it in the "
            "hypothesis and propose it again."
        )

    async def permit(self, what: str) -> bool:
        """See `loop.agents.Desk`."""
        return await self._permit(what)

    async def worktree(self) -> Path:
        """See `loop.agents.Desk`."""
        folder = self._study.worktree
        await asyncio.to_thread(self._workspace.worktree, self._base, folder)
        return folder
