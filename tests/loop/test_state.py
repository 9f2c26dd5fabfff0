"""State is a pure fold; results.tsv is state written out."""

from __future__ import annotations

import copy

import msgspec
import pytest

from loop import events as ev
from loop import results
from loop.events import Change, Record
from loop.state import fold


def night(direction="minimize", values=(1.5, 1.4, 1.6, None, 1.3)):
    """A study: the baseline, a keep, a discard, a crash, and one that a person rejects after its measurement."""
    yield ev.StudyOpened(
        tag="t", branch="labtop/t", base="b" * 40, metric="val_bpb", direction=direction, budget=20, device="cpu",
        command="python train.py",
    )  # fmt: skip
    yield ev.EngineStarted(pid=7, host="h", agent="search", version="1", experiments=4)
    yield ev.SpecChanged(version=1, digest="d")
    verdicts = ("keep", "keep", "discard", "crash", "reject")
    for number, (value, verdict) in enumerate(zip(values, verdicts, strict=True)):
        agent = "search" if number else "baseline"
        yield ev.ProposalStarted(number=number, base="b" * 40, agent=agent, spec=1)
        yield ev.Proposed(
            number=number, commit=f"{number}" * 40, hypothesis=f"idea\t{number}\nmore", fingerprint=str(number),
            changes=(Change("LR", "1", "2"),),
        )  # fmt: skip
        yield ev.TrialStarted(number=number, trial=1, device="cpu", seed=1, budget=20)
        yield ev.TrialFinished(
            number=number, trial=1, outcome="ok" if value else "crash", value=value, wall_seconds=2.5,
            summary={"peak_vram_mb": 2048.0},
        )  # fmt: skip
        by = "person" if verdict == "reject" else "judge"
        yield ev.Decided(number=number, verdict=verdict, reason="because", by=by, value=value, delta=None)
    yield ev.Noted(text="try less")
    yield ev.Paused(by="person")
    yield ev.Stepped(gates=1)
    yield ev.ProposalStarted(number=5, base="1" * 40, agent="search", spec=1)
    yield ev.ProposalFailed(number=5, reason="no answer", wait=4.0)


def records(**options):
    return [Record(seq=n, time=1000.0 + n, event=event) for n, event in enumerate(night(**options), 1)]


def test_a_fold_can_be_cut_anywhere():
    everything = records()
    whole = fold(everything)
    for cut in range(len(everything) + 1):
        state = fold(everything[:cut])
        # As it goes over the wire to a viewer who comes in the middle.
        state = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
        for record in everything[cut:]:
            state.apply(record)
        assert state == whole


def test_states_share_nothing_that_changes():
    everything = records()
    early = fold(everything[:10])
    before = copy.deepcopy(early)
    late = copy.deepcopy(early)
    for record in everything[10:]:
        late.apply(record)
    assert early == before


def test_what_a_person_reads_of_it():
    state = fold(records())
    assert state.counts() == {"keep": 1, "discard": 1, "crash": 1, "reject": 1} and state.tried == 4
    assert state.baseline.number == 0 and state.best.number == 1 and state.gain == pytest.approx(0.1)
    assert state.limit == 4 and state.notes == ["try less"]
    assert state.current.number == 5 and state.failures == 1 and state.last_failure == "no answer"
    assert state.retry_at == state.time + 4.0
    assert state.mode == "paused" and state.steps == 0, "the one gate was passed by the proposal"
    assert state.best.memory_gb == 2.0


def test_more_is_better_where_the_study_says_so():
    state = fold(records(direction="maximize", values=(0.5, 0.75, 0.4, None, 0.9)))
    assert state.gain == pytest.approx(0.25)


def test_an_engine_that_starts_again_is_running_and_its_limit_counts_anew():
    everything = records()
    again = Record(
        seq=len(everything) + 1, time=9e3,
        event=ev.EngineStarted(pid=8, host="h", agent="search", version="1", experiments=10),
    )  # fmt: skip
    state = fold([*everything, again])
    assert state.mode == "running" and state.limit == 14 and state.failures == 0


def test_results_are_the_ecosystems_table(tmp_path):
    state = fold(records())
    path = tmp_path / "results.tsv"
    results.Table().write(path, state)
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert header[:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert {len(row) for row in rows} == {len(header)}
    assert rows[1][:5] == ["1111111", "1.400000", "2.0", "keep", "idea 1 more"]
    assert [row[3] for row in rows] == ["keep", "keep", "discard", "crash", "reject"]
    assert rows[3][1] == "0.000000"
    assert [path.name for path in tmp_path.iterdir()] == ["results.tsv"]


def after(*events):
    everything = records()
    new = [Record(seq=n, time=5000.0 + n, event=event) for n, event in enumerate(events, len(everything) + 1)]
    return fold([*everything, *new])


def proposed(number, **more):
    return ev.Proposed(number=number, commit="5" * 40, hypothesis="idea", **more)


def started(trial):
    return ev.TrialStarted(number=5, trial=trial, device="cpu", seed=trial, budget=20)


def test_a_number_that_is_asked_again_begins_anew_and_success_ends_the_run_of_failures():
    again = ev.ProposalStarted(number=5, base="2" * 40, agent="other", spec=2)
    state = after(ev.ProposalFailed(number=5, reason="still none"), again)
    assert len(state.experiments) == 6 and state.failures == 2
    assert (state.current.base, state.current.agent, state.current.spec) == ("2" * 40, "other", 2)
    state = after(again, proposed(5))
    assert (state.failures, state.last_failure, state.retry_at) == (0, "", None)


def test_each_trial_is_kept_and_the_latest_one_speaks():
    lost = ev.TrialFinished(number=5, trial=1, outcome="lost", summary={"peak_vram_mb": 1.0})
    measured = ev.TrialFinished(number=5, trial=2, outcome="ok", value=1.2, summary={"peak_vram_mb": 512.0})
    state = after(proposed(5), started(1), lost, started(2), measured)
    experiment = state.experiments[5]
    assert [(trial.trial, trial.seed, trial.outcome) for trial in experiment.trials] == [(1, 1, "lost"), (2, 2, "ok")]
    assert experiment.memory_gb == 0.5 and experiment.stage == "trained" and experiment.trial.value == 1.2


def test_a_trial_once_frozen_from_outside_stays_disturbed():
    frozen = ev.TrialPaused(number=5, trial=1, cooperative=False)
    asked = ev.TrialPaused(number=5, trial=1, cooperative=True)
    on = ev.TrialResumed(number=5, trial=1)
    assert after(proposed(5), started(1), asked).current.trial.paused
    trial = after(proposed(5), started(1), asked, on).current.trial
    assert not trial.paused and not trial.disturbed
    assert after(proposed(5), started(1), frozen, on, asked, on).current.trial.disturbed


def test_what_was_rejected_in_training_stays_so_when_its_trial_ends():
    rejected = ev.Decided(number=5, verdict="reject", reason="no", by="person")
    state = after(proposed(5), started(1), rejected, ev.TrialFinished(number=5, trial=1, outcome="killed"))
    assert state.current is None and state.experiments[5].stage == "decided"
    assert state.experiments[5].verdict == "reject" and state.experiments[5].trial.outcome == "killed"


def test_gates_count_down_to_none_and_never_below():
    state = after(ev.Stepped(gates=2), proposed(5), started(1))
    assert state.steps == 1 and state.mode == "paused"
    decided = ev.Decided(number=5, verdict="discard", reason="worse", value=2.0)
    assert after(ev.Resumed(), proposed(5), started(1), decided).steps == 0
    assert after(ev.Stepped(gates=3), ev.Resumed()).steps == 0


def test_words_go_where_they_belong():
    state = after(ev.Noted(text="too wide", number=3), ev.Noted(text="think small"))
    assert state.experiments[3].notes == ("too wide",) and state.notes == ["try less", "think small"]


def test_of_warnings_the_latest_are_kept():
    state = after(*(ev.Warned(text=str(n)) for n in range(60)))
    assert state.warnings == [str(n) for n in range(10, 60)]


def test_a_shallow_copy_of_a_state_does_not_change_with_it():
    state = after(ev.Warned(text="w"))
    seen = copy.copy(state)
    state.apply(Record(seq=99, time=9e3, event=ev.Noted(text="later")))
    state.apply(Record(seq=100, time=9e3, event=ev.Warned(text="later")))
    assert seen.notes == ["try less"] and seen.warnings == ["w"]


def test_without_a_limit_there_is_none_and_a_stopped_engine_has_no_pid():
    endless = ev.EngineStarted(pid=8, host="h", agent="search", version="1")
    assert after(endless).limit is None and after(endless).engine_pid == 8
    state = after(endless, ev.EngineStopped(reason="asked"))
    assert (state.mode, state.mode_reason, state.engine_pid) == ("stopped", "asked", 0)


def test_before_there_is_a_baseline_there_is_no_gain():
    state = fold(records()[:5])
    assert state.gain is None and state.best is None and state.baseline is None and state.tried == 0
    assert fold([]).current is None
