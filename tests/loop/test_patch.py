from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.patch import Edit, EditError, apply_edits, count_lines, sketch, unified_diff

FILES = {"train.py": "a = 1\nb = 2\nc = 1\n", "other.py": "é = 'ü'\r\nx = 3"}


def test_edits_apply_in_order_each_to_the_last_ones_result():
    changed = apply_edits(FILES, [Edit("train.py", "b = 2", "b = 3\nd = 4"), Edit("train.py", "d = 4", "d = 5")])
    assert changed == {"train.py": "a = 1\nb = 3\nd = 5\nc = 1\n"}


def test_unicode_and_line_ends_stay():
    assert apply_edits(FILES, [Edit("other.py", "é = 'ü'\r\n", "é = 'ö'\r\n")]) == {"other.py": "é = 'ö'\r\nx = 3"}


def test_an_empty_search_replaces_the_file():
    assert apply_edits(FILES, [Edit("train.py", "", "new\n")]) == {"train.py": "new\n"}


@pytest.mark.parametrize(
    ("edits", "growing", "text"),
    [
        ([Edit("train.py", "b = 2", "b = 3")], False, "a = 1\nb = 3\nc = 1\n"),
        ([Edit("train.py", "b = 2\nc = 1\n", "b = 3\nx")], True, "a = 1\nb = 3\nc = 1\n"),
        ([Edit("train.py", "b = 2\n", "b = 3\nx = 1\ny")], True, "a = 1\nb = 3\nx = 1\nc = 1\n"),
        ([Edit("train.py", "", "a = 9\n")], True, "a = 9\nb = 2\nc = 1\n"),
        ([Edit("train.py", " = 1", " = 9"), Edit("gone.py", "a", "b"), Edit("train.py", "zz", "")], False, None),
    ],
)
def test_a_sketch_has_what_is_written_so_far_and_passes_over_what_does_not_fit(edits, growing, text):
    assert sketch(FILES, edits, growing=growing) == {**FILES, "train.py": text or FILES["train.py"]}


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([Edit("train.py", " = 1", " = 9")], "stands 2 times in train.py, at lines 1, 3"),
        ([Edit("train.py", "b =  2", "b = 3")], "the nearest text there is:\nb = 2"),
        ([Edit("train.py", "zzzzzzzz", "")], "(nothing similar)"),
        ([Edit("prepare.py", "a", "b")], "prepare.py is not an editable file; editable: other.py, train.py"),
        ([Edit("train.py", "b = 2", "b = 2")], "the edits change nothing"),
        ([], "the edits change nothing"),
    ],
)
def test_what_cannot_be_applied_says_what_stands_there(edits, said):
    with pytest.raises(EditError) as error:
        apply_edits(FILES, edits)
    assert said in str(error.value)


def test_all_or_none():
    files = dict(FILES)
    with pytest.raises(EditError):
        apply_edits(files, [Edit("train.py", "b = 2", "b = 3"), Edit("train.py", "nowhere", "x")])
    assert files == FILES


# What git takes for a part of a line, str.splitlines takes for the end of one.
WORDS = ["a = 1", "b = 2", "  c", "", "é", "-- x", "++ y", "@@ z", "b = 2\r", "\x0c", "'\x85 \u2028'", "c\rd"]
LINES = st.lists(st.sampled_from(WORDS), max_size=12)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + ("\n" if end and lines else ""), LINES, st.booleans())


@given(TEXTS, TEXTS)
@settings(max_examples=60, deadline=None)
def test_git_applies_the_diff_to_the_letter(tmp_path_factory, old, new):
    if old == new:
        return
    folder = tmp_path_factory.mktemp("apply")
    (folder / "f.py").write_bytes(old.encode())
    diff = unified_diff({"f.py": old}, {"f.py": new})
    subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=diff.encode(), cwd=folder, check=True)
    assert (folder / "f.py").read_bytes() == new.encode()


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("a\nb\n-- c\n", "a\nx\ny\n", (2, 2)),
        ("", "a\nb", (2, 0)),
        ("a", "b", (1, 1)),
        ("a\n" * 30, "z\n" + "a\n" * 30 + "++ z\n", (2, 0)),
        ("a\n", "a\n", (0, 0)),
        ("a\r\nb\r\n", "a\r\nc\r\nd\r\n", (2, 1)),
        ("\x0ca\u2028b\n", "\x0ca\u2028c\n", (1, 1)),
    ],
)
def test_lines_are_counted(old, new, counts):
    assert count_lines(unified_diff({"f": old}, {"f": new})) == counts
