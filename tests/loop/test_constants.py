from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.constants import constant_changes, find_constants, literal, parse, set_constants
from loop.events import Change

SOURCE = '''"""Ä docstring."""

import math

KIND = "cpu"
RATE = 0.02  # 0.001..0.5 (log) — how fast
WIDTH = {"cpu": 64, "cuda": 2**9}[KIND]  # one of: 32, 64, 128 — ö
DEPTH = 4  # 1..8
FLAG = True
BATCH = 2**14
SHIFT = -1.5
WORD = "SL"  # one of: "L", "SL"
PAIR = (1, 2)
TWICE = 1
TWICE = 2
lower = 3
ROOT = math.sqrt(2)


def f():
    INSIDE = 1


AFTER = 5
'''


def found(device="cpu"):
    return {constant.name: constant for constant in find_constants(SOURCE, device)}


def test_constants_are_what_a_person_would_call_so():
    assert list(found()) == ["KIND", "RATE", "WIDTH", "DEPTH", "FLAG", "BATCH", "SHIFT", "WORD"]
    values = [constant.value for constant in found().values()]
    assert values == ["cpu", 0.02, 64, 4, True, 16384, -1.5, "SL"]


def test_comments_say_where_to_search():
    constants = found()
    assert (constants["RATE"].low, constants["RATE"].high, constants["RATE"].log) == (0.001, 0.5, True)
    assert (constants["DEPTH"].low, constants["DEPTH"].high, constants["DEPTH"].log) == (1, 8, False)
    assert constants["WIDTH"].options == (32, 64, 128) and constants["WORD"].options == ("L", "SL")
    assert constants["FLAG"].options == () and constants["FLAG"].low is None


def test_each_device_has_its_own_entry():
    assert found("cuda:1")["WIDTH"].value == 512
    assert "WIDTH" not in found("mps")
    changed = set_constants(SOURCE, {"WIDTH": "128"}, "cuda")
    assert changed == SOURCE.replace("2**9", "128")
    assert constant_changes(SOURCE, changed, "cpu") == ()
    (change,) = constant_changes(SOURCE, changed, "cuda")
    assert (change.name, change.old, change.new) == ("WIDTH", "2**9", "128")


NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6).map(lambda x: float(literal(x))))


@given(st.dictionaries(st.sampled_from(["RATE", "WIDTH", "DEPTH", "BATCH", "SHIFT"]), NUMBERS))
def test_setting_changes_the_literals_and_no_other_byte(values):
    changed = set_constants(SOURCE, {name: literal(value) for name, value in values.items()})
    again = {constant.name: constant for constant in find_constants(changed)}
    for name, constant in found().items():
        assert again[name].value == values.get(name, constant.value)
    back = set_constants(changed, {name: found()[name].text for name in values})
    assert back == SOURCE


def test_a_file_with_carriage_returns_keeps_them():
    source = SOURCE.replace("\n", "\r\n")
    assert set_constants(source, {"DEPTH": "5"}) == source.replace("DEPTH = 4", "DEPTH = 5")


def test_what_does_not_parse_has_none():
    assert find_constants("x = (") == []
    with pytest.raises(KeyError):
        set_constants(SOURCE, {"NOWHERE": "1"})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1 + 0.2, "0.3"), (1e-7, "1e-07"), (2.0, "2.0"), (12345.6, "1.23e+04"), (7, "7"), (True, "True")],
)
def test_values_are_written_as_a_person_would(value, text):
    assert literal(value) == text
    assert parse(text) == pytest.approx(value, rel=5e-3)


HARD = ["0 ** -1", "1024**64 * 1024**64 * 1.5", "1024**64 * 1024**64 * 1024**64 / 3", "(-8) ** 0.5"]
HARD += ["-" * 5000 + "1", "-" * 200_000 + "1", " * ".join("1" * 600), " * ".join("1" * 5000)]


@pytest.mark.parametrize("text", HARD[:-2])
def test_arithmetic_without_a_value_is_no_constant(text):
    assert parse(text) is None
    assert [constant.name for constant in find_constants(f"DEPTH = 4\nX = {text}\n")] in (["DEPTH"], [])


@pytest.mark.parametrize("text", HARD)
def test_no_file_that_an_agent_can_write_breaks_the_search(text):
    source = f"DEPTH = 4\nX = {text}\n"
    find_constants(source)
    assert constant_changes("DEPTH = 3\n", source) in ((Change("DEPTH", "3", "4"),), ())


@pytest.mark.parametrize("text", ["f()", "[1]", "1 +", "", "__import__('os')", "9**9**9**9"])
def test_what_is_no_literal_is_not_run(text):
    assert parse(text) is None


def test_a_comment_that_only_looks_like_a_hint_is_none():
    for comment in ("one of: yes, no", "1..x", "1e..2", "see 1..3", "one of: "):
        (constant,) = find_constants(f"DEPTH = 4  # {comment}\n")
        assert (constant.options, constant.low, constant.high) == ((), None, None), comment


def test_the_value_in_use_is_among_the_options_whatever_the_comment_says():
    (constant,) = find_constants("DEPTH = 4  # one of: 6, 8 — deeper\n")
    assert constant.options == (4, 6, 8)


def test_only_constants_of_both_sides_that_differ_are_changes():
    old, new = "A = 1\nB = 2\nC = 3\n", "B = 2.5\nA = 1  # same\nD = 4\n"
    assert constant_changes(old, new) == (Change("B", "2", "2.5"),)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@given(TEXT, TEXT, st.integers(), st.integers())
def test_what_stands_around_a_constant_stays_whatever_it_is(before, behind, old, new):
    source = f"S = {before!r}\n# {before}\nX = {old}  # {behind}\n\n\ndef f():\n    return {behind!r}\n"
    assert set_constants(source, {"X": str(new)}) == source.replace(f"\nX = {old}  #", f"\nX = {new}  #")
