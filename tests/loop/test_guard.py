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
