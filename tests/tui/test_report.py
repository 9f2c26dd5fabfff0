from loop.state import Experiment, StudyState, Trial
from tui.report import front, report


def experiment(number, value, memory, verdict="discard", **fields):
    trial = Trial(
        number=number, trial=1, device="cpu", seed=1, budget=1.0, started=0.0, outcome="ok", value=value,
        summary={"peak_vram_mb": 1024 * memory},
    )  # fmt: skip
    return Experiment(
        number=number, stage="decided", base="b", agent="a", spec=1, started=0.0, commit=f"{number}" * 40, value=value,
        verdict=verdict, trials=(trial,), **fields,
    )  # fmt: skip


def study(direction="minimize", sign=1):
    values = [(1.5, 2.0), (1.4, 4.0), (1.45, 1.0), (1.6, 1.0), (1.45, 3.0), (1.39, 4.0)]
    return StudyState(
        seq=1, tag="t", metric="val_bpb", direction=direction, incumbent=1,
        experiments=[experiment(n, sign * value, memory) for n, (value, memory) in enumerate(values)],
    )  # fmt: skip


def test_on_the_front_is_what_nothing_beats_with_less_memory():
    assert [one.number for one in front(study())] == [2, 5]
    assert [one.number for one in front(study("maximize", -1))] == [2, 5]


def test_the_report_tells_what_was_kept_and_what_foreign_text_says_is_inert():
    state = study()
    state.experiments[1] = experiment(
        1, 1.4, 4.0, "keep", delta=-0.1, sigma=0.01, hypothesis="wider | <b>\x1b[31m*it*\nhelps"
    )
    state.notes = ["be [bold]"]
    page = report(state, "study  t")
    assert "| 0001 | 1.4000 | -0.1000 ± 0.0100 | 1 |  | 1111111 | wider \\| \\<b\\>\\*it\\* helps |" in page
    assert "- be \\[bold\\]" in page and "\x1b" not in page
    assert "| 1 | 6 | 1 | 0.1000 |" in page


def test_an_empty_study_says_so():
    assert report(StudyState(tag="t", metric="m"), "").count("Nothing yet.") == 4
