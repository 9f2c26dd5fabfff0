"""What a script prints is read the same however it arrives, and nothing it prints reaches a terminal raw."""

import math
import unicodedata
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loop.events import Step
from loop.remote import wire
from loop.trials.output import LONGEST_LINE, OutputParser, Progress, clean

FRAGMENTS = [
    *(b"step 00042 (14.0%) | loss: 3.21 | tok/s: 1,234 | mfu: 12.5%", b"iter 7/10: loss 2.5", b"---", b"val_bpb: 1.25"),
    *(
        b"val_bpb: nan",
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\xc3\xa9",
        b"\xe2\x82\xac",
        b"\xff\xfe",
        b"\xe2\x82",
        b"\x1b[31m",
    ),
    *(b"\x1b]0;title\x07", b"\x1b", b"\x9b2J", b"\x00", b"\t", b"x" * 5000, b"1" * 30, b"loss: nan", b"Traceback"),
]
STREAMS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6)), max_size=40).map(b"".join)


def parse(*pieces):
    parser, lines, steps = OutputParser(), [], []
    for piece in (*pieces, None):
        more, further = parser.feed(piece or b"", final=piece is None)
        lines += more
        steps += further
    return repr((lines, steps, parser.summary, parser.last_lines))


def feed(data):
    parser = OutputParser()
    lines, steps = parser.feed(data, final=True)
    return lines, steps, parser


@given(STREAMS, st.lists(st.integers(0, 4000), max_size=12))
@example("val_bpb: 1.5 é\n".encode(), list(range(20)))
@settings(deadline=None)
def test_a_stream_means_the_same_in_any_pieces(data, cuts):
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert parse(*(data[a:b] for a, b in pairwise(at))) == parse(data)


@given(STREAMS)
@settings(deadline=None, max_examples=50)
def test_byte_by_byte_too(data):
    data = data[:3000]
    assert parse(*(data[at : at + 1] for at in range(len(data)))) == parse(data)


@given(
    st.one_of(st.text(), STREAMS.map(lambda data: data.decode("latin-1")), st.text(alphabet="\x1b[]0;m\x07\x9b\\P x"))
)
@example("\x1b\x1b[[31m31m")
@example("\u061cabc\u202edef\u2066")
def test_no_control_sequence_passes_clean(text):
    cleaned = clean(text)
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"]
    assert not set(cleaned) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert clean(cleaned) == cleaned


def test_a_title_and_colours_vanish_and_the_words_between_stay():
    lines, _, _ = feed(b"\x1b]0;owned\x07\x1b[1;31mred\x1b[0m \xc2\x9b2Jplain\x08\x1b[?25l caf\xc3\xa9 \xff\n")
    assert lines == ["red plain café �"]


def test_carriage_return_progress_becomes_steps_and_no_log_lines():
    out = b"hello\n" + b"".join(
        b"\rstep %05d (%.1f%%) | loss: %.2f | tok/s: 12,500 | mfu: 41.5%%" % (step, step, 4 - step / 100)
        for step in range(3)
    )
    lines, steps, _ = feed(out + b"\ndone\n")
    assert lines == ["hello", "done"]
    assert steps == [
        Progress(step, 4 - step / 100, pytest.approx(step / 100), 12500.0, pytest.approx(0.415)) for step in range(3)
    ]


@pytest.mark.parametrize(
    ("line", "step", "loss", "share"),
    [
        ("step 12 | train_loss: 2.5", 12, 2.5, None),
        ("iter 3/12: loss 4.0", 3, 4.0, 0.25),
        ("Iteration: 5 loss=1e-3", 5, 0.001, None),
        ("step 5/0 loss: 1", 5, 1.0, None),
    ],
)
def test_the_usual_forms_of_progress(line, step, loss, share):
    _, steps, _ = feed(f"{line}\n".encode())
    assert steps == [Progress(step, loss, share)]


def test_the_summary_is_read_after_the_rule_and_at_line_starts_only():
    lines, _, parser = feed(
        b"num_params: 1,234,567\nbest so far val_bpb: 0.1\n  val_bpb: 0.2\n---\nval_bpb: 1.234e0\n"
        b"peak_vram_mb: .5\r\nnote: fine\nval_bpb is 7\ntotal_seconds: 30"
    )
    assert parser.summary == {
        "num_params": [1234567.0],
        "val_bpb": [1.234],
        "peak_vram_mb": [0.5],
        "total_seconds": [30.0],
    }
    assert "---" in lines and "note: fine" in lines


def test_every_print_of_the_metric_is_kept():
    _, _, parser = feed(b"val_bpb: 1.5\nval_bpb: 1.2\n")
    assert parser.summary["val_bpb"] == [1.5, 1.2]


def test_not_a_number_is_seen_as_such():
    lines, steps, parser = feed(b"step 1 loss: 2.0\nstep 2 loss: nan\rstep 3 loss: inf\nval_bpb: nan\n")
    assert math.isnan(parser.summary["val_bpb"][0])
    assert [step.loss for step in steps] == [2.0]
    assert "step 2 loss: nan" in lines and "step 3 loss: inf" in lines


@pytest.mark.parametrize(
    "line",
    [
        "step 3 loss: nan",
        "step 3 loss: 1e999",
        f"step {'9' * 400}/1 loss: 1",
        f"step 1/{'9' * 400} loss: 1",
        f"step {'9' * 4000} loss: 2",
        f"step 3 loss: 1 tok/s: {'9' * 400} mfu: {'9' * 400}%",
        "step 3 (1.2.3%) loss: 1 tok/s: 1.2.3 mfu: ..",
    ],
)
def test_whatever_a_progress_line_holds_a_viewer_can_read(line):
    _, steps, _ = feed(line.encode() + b"\n")
    for progress in steps:
        step = Step(number=1, trial=1, time=0.0, **msgspec.structs.asdict(progress))
        assert msgspec.json.decode(wire.encode(step)[4:], type=wire.AnyMessage).loss == progress.loss


def test_a_line_without_end_costs_no_memory_and_hides_nothing_behind_it():
    parser, lines = OutputParser(), []
    for _ in range(200):
        lines += parser.feed(b"x" * 65536)[0]
    assert not lines and len(parser._rest) <= LONGEST_LINE
    lines += parser.feed(b"\nval_bpb: 1.5\n", final=True)[0]
    assert lines == ["x" * LONGEST_LINE, "val_bpb: 1.5"] and parser.summary == {"val_bpb": [1.5]}


@pytest.mark.parametrize("line", ["a: " + "1" * 4000 + "x", "a: " + "1," * 2000 + "x", "\x1b]" * 2000, "step 1 " * 500])
def test_no_line_takes_time_out_of_proportion(line):
    # A quadratic pattern takes half an hour for these; the suite's own time-out ends it.
    feed(f"{line}\n".encode() * 4000)


def test_the_last_lines_are_the_last_words_without_progress():
    _, _, parser = feed(b"".join(b"line %d\nstep %d loss: 1\n" % (n, n) for n in range(100)) + b"ValueError: bad")
    assert parser.last_lines[-2:] == ["line 99", "ValueError: bad"] and len(parser.last_lines) <= 40
