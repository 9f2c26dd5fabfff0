"""`kill -9` at any instant, two hundred times: the studies go on, and no training is run twice."""

from __future__ import annotations

from collections import Counter

import mortal
import pytest
from conftest import Ground

STUDIES, KILLS = 4, 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_lose_nothing_and_run_nothing_twice(workers, place):
    # The last one in the sandbox that is the best here.
    grounds = [
        Ground(place / str(seed), seconds=0.3, sandbox="auto" if seed == STUDIES - 1 else "off", experiments=1)
        for seed in range(STUDIES)
    ]
    tasks = [
        workers.submit(mortal.kill_at_random, ground.order, seed=s, kills=KILLS) for s, ground in enumerate(grounds)
    ]
    stages: Counter[str] = Counter()
    for ground, task in zip(grounds, tasks, strict=True):
        killed, ground.experiments = task.result()
        stages += killed
        assert ground.check() == []
        # A training that lost its engine went on and was adopted: had it not been, there would be a second trial.
        for experiment in mortal.state(ground.order).experiments:
            assert [trial.outcome for trial in experiment.trials] == ["ok"], experiment.number
    assert stages.total() == STUDIES * KILLS
    assert stages["training"] > 20 and stages["between"] > 0, stages
