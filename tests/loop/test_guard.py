from __future__ import annotations

import pytest

from loop.guard import Refused, check, fingerprint

OLD = {"train.py": "LR = 0.1  # a rate\nSIZE = 2**3\nprint(LR)\n"}


def judge(changed, tried=None):
    check(OLD, changed, editable=["train.py"], frozen=["prepare.py"], tried=tried or {})


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
    judge({"train.py": OLD["train.py"].replace("0.1", "0.2")})


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
        judge({"train.py": same}, {fingerprint(OLD): "0004 (discard: worse)"})


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
    tried = {fingerprint({"train.py": "x = 2\n", "model.py": "y = 1\n"}): "0001"}
    check({**old, "model.py": "y = 3\n"}, {"train.py": "x = 2\n"}, editable=list(old), frozen=[], tried=tried)
    with pytest.raises(Refused, match="repeats experiment 0001"):
        check(old, {"train.py": "x = 2  # again\n"}, editable=list(old), frozen=[], tried=tried)
