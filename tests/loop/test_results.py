"""results.tsv as other tools read it, whatever an agent writes into a description."""

import csv
import resource
import signal

import pytest

from loop import events as ev
from loop import results
from loop.events import Record
from loop.state import fold

HOSTILE = 'a\tb\nc\r\nd\x0be\x0cf\x1cg\x85h\u2028i "quoted" ü 🐢  '


def study(*events, metric="val_bpb"):
    opened = ev.StudyOpened(
        tag="t", branch="labtop/t", base="b" * 40, metric=metric, direction="minimize", budget=20, device="cpu",
        command="python train.py",
    )  # fmt: skip
    return fold(Record(seq=n, time=float(n), event=event) for n, event in enumerate((opened, *events), 1))


def experiment(number, *, value=None, verdict="keep", summary={}, hypothesis="idea", **decided):  # noqa: B006
    yield ev.ProposalStarted(number=number, base="b" * 40, agent="search", spec=1)
    yield ev.Proposed(number=number, commit=f"{number:x}" * 40, hypothesis=hypothesis)
    yield ev.TrialStarted(number=number, trial=1, device="cpu", seed=1, budget=20)
    outcome = "crash" if value is None else "ok"
    yield ev.TrialFinished(
        number=number, trial=1, outcome=outcome, value=value, summary=summary, wall_seconds=2.54
    )  # fmt: skip
    yield ev.Decided(number=number, verdict=verdict, value=value, **{"reason": "because", **decided})


def table(state):
    header, *rows = [line.split("\t") for line in results.render(state).removesuffix("\n").split("\n")]
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_first_five_columns_are_the_ecosystems_to_the_letter():
    state = study(*experiment(0, value=1.23456789, summary={"peak_vram_mb": 1536.0}, hypothesis="the baseline"))
    header, row = results.render(state).splitlines()
    assert header.split("\t")[:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert row.split("\t")[:5] == ["0000000", "1.234568", "1.5", "keep", "the baseline"]


def test_the_value_column_has_the_metrics_name():
    assert list(table(study(*experiment(0, value=1.0), metric="loss"))[0])[1] == "loss"


def test_a_study_without_a_verdict_is_a_header():
    under_way = list(experiment(0, value=1.0))[:-1]
    for events in ([], under_way[:1], under_way):
        assert results.render(study(*events)).count("\n") == 1


@pytest.mark.parametrize("text", [HOSTILE, "\t\n", "", '"', "=cmd()"])
def test_what_stands_in_a_description_or_reason_breaks_no_row(tmp_path, text):
    path = tmp_path / "results.tsv"
    results.Table().write(
        path, study(*experiment(0, value=1.0, hypothesis=text, reason=text), *experiment(1, value=0.9))
    )
    raw = path.read_bytes()
    assert raw.count(b"\n") == 3 and len(path.read_text().splitlines()) == 3
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["number"] for row in rows] == ["0", "1"]
    assert rows[0]["description"] == rows[0]["reason"] == " ".join(text.split())


def test_a_crash_reads_as_zeros_and_says_why():
    state = study(*experiment(0, value=1.0), *experiment(1, verdict="crash", reason="out of memory"))
    row = table(state)[1]
    assert (row["val_bpb"], row["memory_gb"], row["status"], row["reason"]) == (
        "0.000000", "0.0", "crash", "out of memory",
    )  # fmt: skip
    assert row["delta"] == ""


def test_what_never_ran_has_no_commit_and_no_seconds():
    rejected = ev.Decided(number=0, verdict="reject", reason="no", by="person")
    state = study(ev.ProposalStarted(number=0, base="b" * 40, agent="search", spec=3), rejected)
    (row,) = table(state)
    assert (row["commit"], row["seconds"], row["by"], row["spec"]) == ("-------", "0.0", "person", "3")


def test_the_further_columns_tell_the_rest():
    row = table(study(*experiment(0, value=1.0, delta=-0.25)))[0]
    assert (row["number"], row["delta"], row["seconds"], row["by"]) == ("0", "-0.250000", "2.5", "judge")


def test_a_verdict_that_a_person_overturns_is_the_one_that_stands():
    again = ev.Decided(number=0, verdict="keep", reason="I want it", by="person", value=1.0)
    (row,) = table(study(*experiment(0, value=1.0, verdict="discard"), again))
    assert (row["status"], row["reason"], row["by"]) == ("keep", "I want it", "person")


def test_writing_again_replaces_the_table_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "results.tsv"
    results.Table().write(path, study(*experiment(0, value=1.0)))
    with path.open() as reader:
        first = path.read_text()
        results.Table().write(path, study(*experiment(0, value=1.0), *experiment(1, value=0.9)))
        assert reader.read() == first, "who reads the old table reads it to its end"
    assert len(path.read_text().splitlines()) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["results.tsv"]


def test_how_well_it_is_known_stands_at_the_end():
    once = list(experiment(0, value=1.0, delta=-0.25, sigma=0.125))
    more = ev.TrialStarted(number=0, trial=2, device="cpu", seed=2, budget=20)
    again = ev.TrialFinished(number=0, trial=2, outcome="ok", value=3.0)
    state = study(*once[:-1], more, again, once[-1])
    assert results.render(state).splitlines()[0].endswith("\ttrials\tsigma\taudit")
    row = table(state)[0]
    assert (row["trials"], row["sigma"], row["audit"]) == ("2", "0.125000", "")
    unknown = table(study(*experiment(0, verdict="crash")))[0]
    assert (unknown["trials"], unknown["sigma"], unknown["audit"]) == ("0", "", "")


def test_an_audit_has_its_column():
    opened = ev.StudyOpened(
        tag="t", branch="labtop/t", base="b" * 40, metric="val_bpb", direction="minimize", budget=20, device="cpu",
        command="python train.py", audit="python -m audit",
    )  # fmt: skip
    trained = list(experiment(0, value=1.0, verdict="discard"))
    audited = ev.Audited(number=0, trial=1, colour="red", value=1.5, findings=("it cheats",))
    events = [opened, *trained[:-1], audited, ev.Decided(number=0, verdict="discard", reason="red")]
    state = fold(Record(seq=n, time=float(n), event=event) for n, event in enumerate(events, 1))
    row = table(state)[0]
    assert (row["trials"], row["val_bpb"], row["audit"]) == ("0", "0.000000", "red")


def test_a_table_kept_up_to_its_study_is_that_of_the_latest_state_whatever_happened_to_it(tmp_path):
    path, table, state = tmp_path / "results.tsv", results.Table(), study()
    kept = [*experiment(0, value=1.0), *experiment(1, value=0.9)]
    by_hand = ev.Decided(number=2, verdict="keep", value=1.1, by="person", reason="I want it")
    undone = [by_hand, ev.Undone(number=2, why="I do not")]
    events = [*kept, *experiment(2, value=1.1, verdict="discard"), *undone, *experiment(3, value=1.2, verdict="crash")]
    replaced = []
    for number, event in enumerate(events, state.seq + 1):
        before = path.stat().st_ino if path.exists() else 0
        state.apply(Record(seq=number, time=float(number), event=event))
        table.write(path, state)
        assert path.read_text() == results.render(state)
        replaced += [event] if path.stat().st_ino != before else []
    assert path.read_text().splitlines()[3].split("\t")[3] == "discard"
    assert replaced == [events[0], *undone], "new rows are added, and others have it written anew"

    for meddle in (
        path.unlink,
        lambda: path.write_text("mine\n"),
        lambda: path.write_text(path.read_text().swapcase()),
    ):
        meddle()
        table.write(path, state)
        assert path.read_text() == results.render(state)


def test_a_table_that_could_not_be_written_is_whole_the_next_time(tmp_path):
    path, table, state = tmp_path / "results.tsv", results.Table(), study(*experiment(0, value=1.0))
    table.write(path, state)
    for event in experiment(1, value=0.9):
        state.apply(Record(seq=state.seq + 1, time=9.0, event=event))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            table.write(path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() != results.render(state)
    table.write(path, state)
    assert path.read_text() == results.render(state)
