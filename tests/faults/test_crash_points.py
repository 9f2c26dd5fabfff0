"""The engine is killed at every crash point of a study, and the next one ends that study as if nothing had been."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import mortal
import pytest
from conftest import Ground

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def break_everywhere(workers: ProcessPoolExecutor, ground: Ground, place: Path, scene: mortal.Scene) -> list[str]:
    """Kill the engine at each point of the scene, each time in a fresh copy of the study. Returns the points."""
    whole = ground.copy(place / "whole")
    points, numbers = workers.submit(mortal.survey, whole.order, scene).result()
    troubles = [f"no point at all: {trouble}" for trouble in whole.check()]

    def attempt(number: int) -> list[str]:
        copy, name = ground.copy(place / f"{number:03d}"), points[number - 1]
        try:
            died = workers.submit(mortal.die_and_recover, copy.order, scene, number).result()
            found = copy.check() if died == name else [f"it died at another point: {died}"]
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
            for trial in copy.root.glob(".labtop/t/experiments/*/trial-*"):
                (trial / "kill").touch()
        else:
            shutil.rmtree(copy.root.parent)
        return [f"{number:3d} {name}: {trouble}" for trouble in found]

    # One more than there are workers: a study is looked at while the next ones run.
    with ThreadPoolExecutor(3) as threads:
        troubles += [trouble for found in threads.map(attempt, numbers) for trouble in found]
    assert not troubles, f"{len(troubles)} troubles at {len(numbers)} points:\n" + "\n".join(troubles)
    return [points[number - 1] for number in numbers]


@pytest.fixture
def measured(workers: ProcessPoolExecutor, place: Path) -> Ground:
    """A study whose baseline is measured: two proposals are still to be decided."""
    ground = Ground(place / "measured", experiments=0)
    workers.submit(mortal.finish, ground.order).result()
    ground.experiments = 2
    return ground


def test_the_opening_and_the_baseline(workers, place):
    points = break_everywhere(workers, Ground(place / "fresh", experiments=0), place, "alone")
    assert points[:3] == ["Server.start before", "Server.start after", "append StudyOpened before"]
    assert points[-1] == "append EngineStopped after" and len(points) > 30


def test_two_experiments_one_discarded_and_one_kept(workers, place, measured):
    points = break_everywhere(workers, measured, place, "alone")
    assert verdicts(place / "whole") == ["keep", "discard", "keep"]
    for deed in ("Workspace.commit", "Workspace.record", "Workspace.export", "LocalTrial.launch"):
        assert points.count(f"{deed} before") == points.count(f"{deed} after") >= 2
    assert points.count("Table.write after") == 3, "on opening, and at both verdicts"
    assert points.count("Workspace.advance after") == 1


def test_a_study_that_measures_its_noise_and_audits(workers, place):
    points = break_everywhere(workers, Ground(place / "fresh", experiments=1, audited=True), place, "alone")
    assert points.count("append Audited before") == points.count("append Audited after") == 3
    state = mortal.state(mortal.Order(root=str(place / "whole" / "study"), tag="t"))
    assert [len(experiment.trials) for experiment in state.experiments] == [2, 1]
    assert {trial.colour for experiment in state.experiments for trial in experiment.trials} == {"green"}


@pytest.mark.parametrize(
    ("scene", "experiments", "verdict", "events"),
    [
        ("reject", 1, "reject", ["Decided", "TrialFinished", "EngineStopped"]),
        ("pause", 1, "discard", ["Paused", "TrialPaused", "Resumed", "TrialResumed"]),
        ("keep", 2, "keep", ["Decided"]),
        ("undo", 2, "discard", ["Undone"]),
    ],
)
def test_a_command_that_is_being_carried_out(workers, place, measured, scene, experiments, verdict, events):
    measured.experiments = experiments
    mortal.hold(measured.order).touch()
    points = break_everywhere(workers, measured, place, scene)
    assert [name.split()[1] for name in points if name.endswith("torn")] == events
    assert verdicts(place / "whole")[1] == verdict


def verdicts(folder: Path) -> list[str | None]:
    order = mortal.Order(root=str(folder / "study"), tag="t")
    return [experiment.verdict for experiment in mortal.state(order).experiments]
