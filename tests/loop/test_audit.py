import pytest
from msgspec.structs import replace

from loop.audit import Finding, Report, own_findings, read, worst
from loop.state import Trial

GOOD = ["step 1", "---", "val_bpb: 1.5", "audit: green", "finding: run by its own code"]
TRIAL = Trial(
    number=1, trial=1, device="cpu", seed=1, budget=20.0, started=0.0, outcome="ok", cpu_seconds=24.0, wall_seconds=40.0
)
BASELINE = [replace(TRIAL, number=0, value=1.6, holdout=1.55, colour="green")]
REPORT = Report("green", 1.5, 1.45, ())


def found(trial=TRIAL, report=REPORT, *, tampered=(), direction="minimize", baseline=BASELINE):
    return own_findings(trial, report, baseline=baseline, tampered=tampered, direction=direction)


def test_a_report_is_read_from_what_the_command_printed():
    report = read(GOOD, {"val_bpb": [1.5], "holdout_bpb": [1.45]}, "val_bpb")
    assert report == Report("green", 1.5, 1.45, ("run by its own code",))


@pytest.mark.parametrize(
    "lines",
    [[], ["audit: greenish"], ["audit: green", "audit: red"], ["audit: green", "audit: green"], ["x audit: red"]],
)
def test_a_report_without_one_clear_colour_has_none(lines):
    assert read(lines, {}, "val_bpb").colour is None


def test_nothing_is_found_where_nothing_is():
    assert found() == []
    assert worst("green", []) == "green" and worst("amber", [Finding("green", "")]) == "amber"


@pytest.mark.parametrize(
    ("cpu", "colour"), [(24.0, None), (25.9, None), (26.1, "amber"), (28.9, "amber"), (29.1, "red"), (60.0, "red")]
)
def test_work_beside_the_budget_is_held_against_the_baselines(cpu, colour):
    findings = found(replace(TRIAL, cpu_seconds=cpu))
    assert [finding.colour for finding in findings] == ([colour] if colour else [])
    assert not findings or f"it worked {cpu - 20:.1f} s of CPU time beside its budget of 20 s" in findings[0].text


def test_on_an_accelerator_the_wall_clock_counts_without_pauses():
    trial, baseline = replace(TRIAL, device="cuda:1"), [replace(BASELINE[0], device="cuda:1", wall_seconds=30.0)]
    assert found(replace(trial, wall_seconds=500.0, paused_seconds=470.0), baseline=baseline) == []
    (finding,) = found(replace(trial, wall_seconds=500.0), baseline=baseline)
    assert finding.colour == "red" and "wall clock" in finding.text


def test_a_claim_must_be_what_was_measured():
    assert found(replace(TRIAL, claimed=1.5004)) == []
    (finding,) = found(replace(TRIAL, claimed=1.3))
    assert finding == Finding("red", "it printed 1.300000, and 1.500000 was measured")


def test_frozen_files_are_named():
    assert found(tampered=["trainer/prepare.py"]) == [Finding("red", "the frozen file trainer/prepare.py was changed")]


@pytest.mark.parametrize(
    ("holdout", "colour"), [(1.45, None), (1.499, None), (1.51, "amber"), (1.549, "amber"), (1.58, "red")]
)
def test_a_gain_must_show_on_the_holdout(holdout, colour):
    findings = found(report=replace(REPORT, holdout=holdout))
    assert [finding.colour for finding in findings] == ([colour] if colour else [])
    mirrored = [replace(BASELINE[0], value=-1.6, holdout=-1.55)]
    upward = found(report=replace(REPORT, value=-1.5, holdout=-holdout), direction="maximize", baseline=mirrored)
    assert upward == findings


def test_what_is_worse_anyway_need_not_hold():
    assert found(report=replace(REPORT, value=1.7, holdout=1.9)) == []
