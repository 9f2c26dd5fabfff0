from __future__ import annotations

import pytest

from loop.guard import Refused, check, fingerprint
from loop.state import Experiment

OLD = {"train.py": "LR = 0.1  # a rate\nSIZE = 2**3\nprint(LR)\n"}
WORSE = Experiment(
    number=4, stage="decided", base="b", agent="a", spec=1, started=0.0, verdict="discard", reason="worse"
)


def judge(changed, tried=None, **settings):
    return check(OLD, changed, editable=["train.py"], frozen=["prepare.py"], tried=tried or {}, **settings)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prepare.py": "x = 1\n"}, "prepare.py is frozen; editable: train.py"),
        ({"setup.py": "x = 1\n"}, "setup.py is not an editable file"),
        ({"train.py": "LR = = 1\n"}, "train.py, line 1: invalid syntax"),
        ({"train.py": "x = '\x1b[2J'\n"}, "control character"),
        ({"train.py": "x = 1\x00\n"}, "control character"),
        ({"train.py": "# " + "x" * 1024 * 1024}, "larger than 1 MiB"),
        ({"train.py": "x = '\ud800'\n"}, "control character"),
        ({"train.py": "def f():\n  x = 1\n    y = 2\n"}, "train.py, line 3: unexpected indent"),
        ({"train.py": "x = " + "(" * 300 + "1" + ")" * 300}, "too many nested"),
        ({"train.py": "x = " + "+".join("1" * 5000)}, "too deeply nested"),
        ({"train.py": "x = " + "-" * 200_000 + "1"}, "too deeply nested"),
    ],
)
def test_what_may_not_be_run_is_refused_with_the_reason(changed, said):
    with pytest.raises(Refused, match=said):
        judge(changed)


def test_an_honest_change_passes():
    changed = {"train.py": OLD["train.py"].replace("0.1", "0.2")}
    assert judge(changed) == fingerprint(changed)


@pytest.mark.parametrize(
    "same",
    [
        "LR = 0.1\nSIZE = 8\nprint(LR)\n",
        "LR = 0.10  # another comment\n\n\nSIZE = 2 ** 3\nprint( LR )\n",
        "LR = 1e-1\nSIZE = 8.0\nprint(LR)\n",
    ],
)
def test_the_same_program_in_other_letters_repeats_it(same):
    with pytest.raises(Refused, match="this repeats experiment 0004 \\(discard: worse\\)"):
        judge({"train.py": same}, {fingerprint(OLD): WORSE})


def test_what_was_tried_may_be_tried_again_where_that_is_the_setting():
    judge({"train.py": "LR = 1e-1\nSIZE = 8\nprint(LR)\n"}, {fingerprint(OLD): WORSE}, repeats=True)
    with pytest.raises(Refused, match="is frozen"):
        judge({"prepare.py": "x = 1\n"}, repeats=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1e-3", "x = 0.001"),
        ("x = 1e-3", "x = 1 / 1000"),
        ("x = 1e-3", "x = 10**-3"),
        ("x = 0.3", "x = 3 * 0.1"),
        ("x = 1 / 3", "x = 0.3333333333333333"),
        ("x = 2", "x = 2.0"),
        ("x = 2", "x = (4 / 2)"),
        ("x = -2", "x = 2 - 4"),
        ("x = -2", "x = -(+2.0)"),
        ("x = -4", "x = -2**2"),
        ("x = 6e20", "x = 6 * 10**20"),
        ("x = 16384", "x = 2**14 * (3 - 2)"),
        ("x = {'cpu': 0.02}[KIND]", "x = {'cpu': 2e-2}[KIND]"),
        ("x = f(8 * WIDTH)", "x = f((4 + 4) * WIDTH)"),
        ("def f():\n    return 1", "def f():\n    'What it gives.'\n\n    return 1.0"),
        ("class A:\n    x = 1", "'A module.'\nclass A:\n    x = 1\n    '''One.'''"),
    ],
)
def test_constants_may_be_spelt_in_many_ways_and_docstrings_change_nothing(one, other):
    assert fingerprint({"a.py": one}) == fingerprint({"a.py": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1e-3", "x = 1e-4"),
        ("x = 0.3", "x = 0.30001"),
        ("x = 2", "x = -2"),
        ("x = 2 + 3", "x = 2 * 3"),
        ("x = 8 / WIDTH", "x = WIDTH / 8"),
        ("x = 1 - 2 - 3", "x = 1 - (2 - 3)"),
        ("x = 2**64 - 1", "x = 2**64"),
        ("x = '2'", "x = 2"),
        ("x = '0.5 * 2'", "x = '1.0'"),
        ("x = 1", "x = True"),
        ("x = 10**1000", "x = 10**1001"),
        ("x = 1 / 0", "x = 2 / 0"),
        ("def f():\n    return 'a'", "def f():\n    return 'b'"),
    ],
)
def test_what_computes_something_else_is_something_else(one, other):
    assert fingerprint({"a.py": one}) != fingerprint({"a.py": other})


def test_another_program_is_another_one():
    prints = {
        fingerprint({"train.py": text})
        for text in ("x = 1", "x = 2", "x = '1'", "y = 1", "x = 1; x", "x = True", "x = (", "x = [")
    }
    assert len(prints) == 8


@pytest.mark.parametrize(
    "text",
    [
        "X = 0 ** -1\n",
        "X = 999999.5 ** 60\n",
        "X = 10**300 * 1.5\n",
        "X = 9**64 * 9.5**64\n",
        "X = (-8) ** 0.5\n",
        "X = 9**9**9**9\n",
        "X = 10**64 * 10**64 * 10**64 * 10**64 * 10**64 * 1.5\n",
        "X = 1e308 + 1e308 - 1e999\n",
        "X = 1" + " + 1" * 600 + "\n",
    ],
)
def test_arithmetic_that_python_can_parse_and_nobody_can_fold_is_told_apart_all_the_same(text):
    judge({"train.py": text})
    assert fingerprint({"train.py": text}) != fingerprint({"train.py": text.replace("X", "Y")})


def test_a_file_that_is_no_python_counts_to_the_letter():
    assert fingerprint({"a.yaml": "x: 1"}) != fingerprint({"a.yaml": "x:  1"})
    assert fingerprint({"a.py": "x = 1"}) != fingerprint({"b.py": "x = 1"})


def test_what_is_left_as_it_was_counts_too():
    old = {"train.py": "x = 1\n", "model.py": "y = 1\n"}
    tried = {fingerprint({"train.py": "x = 2\n", "model.py": "y = 1\n"}): WORSE}
    check({**old, "model.py": "y = 3\n"}, {"train.py": "x = 2\n"}, editable=list(old), frozen=[], tried=tried)
    with pytest.raises(Refused, match="repeats experiment 0004"):
        check(old, {"train.py": "x = 2  # again\n"}, editable=list(old), frozen=[], tried=tried)
