"""Edits: exact search/replace blocks, applied all or none, and the diff they make."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
"""A line as git has it: str.splitlines would also part at form feeds and U+2028, and git then refuse the diff."""
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")

NEAREST_AT_MOST = 40
"""Lines of a block that are looked for: comparing costs the square of it, and the rest lies below."""


class Edit(msgspec.Struct, frozen=True):
    """Replace `search`, which must stand in the file exactly once. An empty `search` replaces the whole file."""

    path: str
    search: str
    replace: str


class EditError(ValueError):
    """An edit that cannot be applied. The message is for the agent: it says what stands there instead."""


def apply_edits(files: Mapping[str, str], edits: Iterable[Edit]) -> dict[str, str]:
    """The files that change, path to new text. Edits of one file apply in order, each to the result of the one before.

    Raises:
        EditError: for an unknown path, a block that is not there or there more than once, or edits that change nothing.
    """
    changed: dict[str, str] = {}
    for edit in edits:
        if edit.path not in files:
            raise EditError(f"{edit.path} is not an editable file; editable: {', '.join(sorted(files))}")
        text = changed.get(edit.path, files[edit.path])
        changed[edit.path] = _replaced(text, edit)
    changed = {path: text for path, text in changed.items() if text != files[path]}
    if not changed:
        raise EditError("the edits change nothing")
    return changed


def _replaced(text: str, edit: Edit) -> str:
    if not edit.search:
        return edit.replace
    found = text.count(edit.search)
    if found == 1:
        return text.replace(edit.search, edit.replace)
    if found:
        places = [str(text.count("\n", 0, at) + 1) for at in _occurrences(text, edit.search)]
        raise EditError(
            f"the search block stands {found} times in {edit.path}, at lines {', '.join(places)}; "
            "add lines around it until it is unique"
        )
    raise EditError(
        f"the search block is not in {edit.path}; the nearest text there is:\n{_nearest(text, edit.search)}"
    )


def sketch(files: Mapping[str, str], edits: Sequence[Edit], *, growing: bool = False) -> dict[str, str]:
    """The files once edits that an agent is still writing are applied, as far as those fit.

    `growing`: of the last one's replacement only the beginning is there; what it has not come to stands as it was.
    """
    texts = dict(files)
    for edit in edits:
        text = texts.get(edit.path)
        if text is None or (edit.search and text.count(edit.search) != 1):
            continue
        old, new = edit.search or text, edit.replace
        if growing and edit is edits[-1]:
            written = _LINE.findall(new[: new.rfind("\n") + 1])
            new = "".join((*written, *_LINE.findall(old)[len(written) :]))
        texts[edit.path] = text.replace(old, new)
    return texts


def _occurrences(text: str, block: str) -> Iterable[int]:
    at = text.find(block)
    while at >= 0:
        yield at
        at = text.find(block, at + len(block))


def _nearest(text: str, block: str) -> str:
    """The window of `text`, as many lines as `block` has, that resembles it most.

    Lines are compared as far as the block's reach: what it leaves out is most often a comment behind the code.
    """
    lines, wanted = text.splitlines(), block.strip("\n").splitlines()[:NEAREST_AT_MOST]
    size, longest = max(1, len(wanted)), max(wanted, key=len, default="")
    heads = [line[: len(longest)] for line in lines]
    anchors = difflib.get_close_matches(longest, heads, n=5, cutoff=0.3)
    starts = {
        max(0, at - offset) for at, head in enumerate(heads) if head in anchors for offset in range(min(size, at + 1))
    }
    if not starts:
        return "(nothing similar)"

    def likeness(start: int) -> float:
        window = [line[: len(other)] for line, other in zip(lines[start : start + size], wanted, strict=False)]
        return (
            difflib.SequenceMatcher(None, window, wanted).ratio()
            + difflib.SequenceMatcher(None, "\n".join(window), "\n".join(wanted)).ratio()
        )

    best = max(sorted(starts), key=likeness)
    return "\n".join(lines[best : best + size])


def unified_diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The change from `old` to `new` in git's unified form; files only in `old` count as unchanged."""
    pieces: list[str] = []
    for path in sorted(new):
        before, after = _LINE.findall(old.get(path, "")), _LINE.findall(new[path])
        for line in difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"):
            pieces.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(pieces)


def count_lines(diff: str) -> tuple[int, int]:
    """Lines added and removed by a unified diff."""
    added = removed = 0
    old = new = 0
    for line in _LINE.findall(diff):
        if old <= 0 and new <= 0:
            # Outside a hunk: only there is a line that starts with "---" a header, and no removed one.
            if found := _HUNK.match(line):
                old, new = (1 if count is None else int(count) for count in found.groups())
            continue
        match line[:1]:
            case "+":
                added, new = added + 1, new - 1
            case "-":
                removed, old = removed + 1, old - 1
            case "\\":
                pass
            case _:
                old, new = old - 1, new - 1
    return added, removed
