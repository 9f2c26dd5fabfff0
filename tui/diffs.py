"""A unified diff as numbered, coloured lines, and what it comes to in numbers. Pure; no widget."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache, lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.text import Text

from loop.events import Caution
from loop.trials.output import clean
from tui import look, words

if TYPE_CHECKING:
    from pygments.lexer import Lexer

COLOURED_AT_MOST = 600
"""Lines of a diff that pygments colours; beyond them it would be felt."""
PLACES_SHOWN = 3
SIDE_BY_SIDE = 110
"""Columns from which on both sides have room beside each other."""

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)")


class DiffLine(NamedTuple):
    """A line of a diff; `number` is its place in the file it is in, the old one for what is removed."""

    kind: Literal["file", "hunk", "added", "removed", "context"]
    text: str
    number: int = 0


def parse(diff: str) -> Iterator[DiffLine]:
    """The lines of a unified diff. Hunks are read by their lengths: a removed line may itself begin with `--`."""
    old = new = old_left = new_left = 0
    # A line ends where git ends it: what else parts lines in other places would shift the numbers of all that follow.
    for raw in diff.removesuffix("\n").split("\n"):
        line = clean(raw)
        if old_left <= 0 and new_left <= 0:
            if hunk := _HUNK.match(line):
                old, new = int(hunk[1]), int(hunk[3])
                old_left, new_left = int(hunk[2] or 1), int(hunk[4] or 1)
                yield DiffLine("hunk", hunk[5])
            elif line.startswith("+++ "):
                yield DiffLine("file", line[4:].split("\t")[0].removeprefix("b/"))
        elif line.startswith("-"):
            yield DiffLine("removed", line[1:], old)
            old, old_left = old + 1, old_left - 1
        elif line.startswith("+"):
            yield DiffLine("added", line[1:], new)
            new, new_left = new + 1, new_left - 1
        elif not line.startswith("\\"):
            yield DiffLine("context", line[1:], new)
            old, new, old_left, new_left = old + 1, new + 1, old_left - 1, new_left - 1


class Extent(NamedTuple):
    """What a diff comes to."""

    files: tuple[str, ...]
    added: int
    removed: int


def extent(diff: str) -> Extent:
    lines = list(parse(diff))
    files = tuple(line.text for line in lines if line.kind == "file")
    kinds = [line.kind for line in lines]
    return Extent(files, kinds.count("added"), kinds.count("removed"))


class Drawn(NamedTuple):
    """A diff as lines to show, and at which of them each hunk begins."""

    texts: list[Text]
    hunks: list[int]


def drawn(diff: str, cautions: Collection[Caution] = (), *, width: int = 0, code: bool = True) -> Drawn:
    """The diff with line numbers and colours; a file's name is a heading where there are several.

    A line to look at twice has a `!` before its number. From `SIDE_BY_SIDE` columns on old and new stand beside each
    other. `code`: it is one of Python.
    """
    several = len(extent(diff).files) > 1
    marked = {(clean(caution.path), caution.line) for caution in cautions}
    path, texts, hunks = "", list[Text](), list[int]()
    removed, added = list[Text](), list[Text]()
    half = (width - 1) // 2 if width >= SIDE_BY_SIDE else 0

    def flush() -> None:
        """Put what was removed and what came in its place beside each other, or below."""
        if half:
            pairs = zip_longest(removed, added, fillvalue=None)
            texts.extend(_beside(old, new, half) for old, new in pairs)
        else:
            texts.extend((*removed, *added))
        removed.clear()
        added.clear()

    for index, line in enumerate(parse(diff)):
        coloured = code and index < COLOURED_AT_MOST
        mark = ""
        if marked:
            mark = "! " if line.kind != "removed" and (path, line.number) in marked else "  "
        if line.kind == "removed":
            if added:
                flush()
            removed.append(_code(line, "-", look.REMOVED, look.RED, mark, coloured=coloured))
            continue
        if line.kind == "added":
            added.append(_code(line, "+", look.ADDED, look.GREEN, mark, coloured=coloured))
            continue
        flush()
        match line.kind:
            case "file":
                path = line.text
                if several:
                    texts.append(Text(line.text, f"bold {look.BLUE}"))
            case "hunk":
                hunks.append(len(texts))
                if texts or line.text:
                    texts.append(Text(f"     ··· {line.text}".rstrip(), look.FAINT))
            case "context":
                shown = _code(line, " ", "", look.FAINT, mark, coloured=coloured)
                texts.append(_beside(shown, shown, half) if half else shown)
    flush()
    return Drawn(texts, hunks)


def _beside(old: Text | None, new: Text | None, half: int) -> Text:
    sides = []
    for side in (old, new):
        text = Text() if side is None else side.copy()
        ground, text.style = text.style, ""
        text.truncate(half, overflow="ellipsis", pad=True)
        if ground:
            text.stylize_before(ground)
        sides.append(text)
    return Text.assemble(sides[0], ("│", look.LINE), sides[1], no_wrap=True)


def cautioned(cautions: Collection[Caution]) -> str:
    """`2 lines to look at twice: clock 41 · score 388`, with the file before the line where there are several.

    Of each kind the first lines, so that there is room for every kind.
    """
    several = len({caution.path for caution in cautions}) > 1
    places: dict[str, list[str]] = {}
    for caution in cautions:
        place = f"{words.one_line(caution.path)}:{caution.line}" if several else str(caution.line)
        places.setdefault(caution.kind, []).append(place)
    lines = len({(caution.path, caution.line) for caution in cautions})
    found = " · ".join(
        f"{kind} {', '.join(at[:PLACES_SHOWN])}{' …' if len(at) > PLACES_SHOWN else ''}" for kind, at in places.items()
    )
    return f"{lines} {'line' if lines == 1 else 'lines'} to look at twice: {found}"


def _code(line: DiffLine, sign: str, ground: str, sign_style: str, mark: str, *, coloured: bool) -> Text:
    text = Text(style=ground)
    text.append(mark, f"bold {look.AMBER}")
    text.append(f"{line.number:>4} ", look.FAINT)
    text.append(f"{sign} ", f"bold {sign_style}")
    if coloured:
        text.append_text(coloured_code(line.text))
    else:
        text.append(line.text)
    return text


def coloured_code(line: str) -> Text:
    """A line of Python in the colours of the theme."""
    styles = {
        "Token.Comment": f"italic {look.FAINT}",
        "Token.Keyword": look.VIOLET,
        "Token.Name.Function": look.BLUE,
        "Token.Name.Class": look.BLUE,
        "Token.Literal.Number": look.AMBER,
        "Token.Literal.String": look.GREEN,
    }
    text = Text()
    for kinds, piece in _pieces(line):
        text.append(piece, next((styles[kind] for kind in kinds if kind in styles), look.INK))
    return text


@lru_cache(maxsize=2048)
def _pieces(line: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """A line of Python in pieces, each with its kinds, the narrowest first. Kept: a diff that grows comes anew."""
    tokens = _lexer().get_tokens(line)
    return tuple((tuple(map(str, reversed(kind.split()))), piece.rstrip("\n")) for kind, piece in tokens)


@cache
def _lexer() -> Lexer:
    # Loaded when the first line of a diff is drawn, after the first sight of a study.
    from pygments.lexers.python import PythonLexer

    return PythonLexer(stripnl=False, ensurenl=False)
