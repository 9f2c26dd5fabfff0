"""The agent's words as blocks to draw: speech as Markdown, thought set off from it, tool calls folded. No widget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from tui import look, words
from tui.view import Line

LONGEST_BLOCK = 24
LARGEST_BLOCK = 1000
"""Lines and characters after which a block ends wherever it stands: the last is drawn anew at every piece of it."""

_FENCE = re.compile(r"\s{0,3}(```+|~~~+)(.*)")


def blocks(lines: Sequence[Line]) -> list[list[Line]]:
    """Part lines where Markdown ends a block: at blank lines outside of code. Other lines than speech stand alone.

    Consecutive lines of one tool are one block. Only the last block can still grow.
    """
    parted: list[list[Line]] = []
    fence = ""
    for line in lines:
        last = parted[-1] if parted else []
        same = bool(last) and last[-1].kind == line.kind
        if line.kind == "tool":
            if same and line.text.startswith((" ", "\t")):
                last.append(line)
            else:
                parted.append([line])
            continue
        if line.kind != "text":
            parted.append([line])
            fence = ""
            continue
        begins = not same or (not fence and not last[-1].text.strip() and bool(line.text.strip()))
        if not begins and (len(last) >= LONGEST_BLOCK or sum(len(one.text) for one in last) >= LARGEST_BLOCK):
            begins = True
            line = Line("text", f"{fence}\n{line.text}") if fence else line
        if begins:
            parted.append([line])
        else:
            last.append(line)
        if found := _FENCE.match(line.text):
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence) and not found[2].strip():
                fence = ""
    return parted


class Thought:
    """Foreign words behind a thin line, however often they wrap."""

    def __init__(self, said: str) -> None:
        self.markup = said

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in Text(self.markup, f"italic {look.FAINT}").wrap(console, max(1, options.max_width - 2)):
            yield Text.assemble(("│ ", look.LINE), line)


def drawn(block: Sequence[Line], *, folded: bool = True) -> list[RenderableType]:
    """One block, ready to be drawn."""
    first = block[0]
    match first.kind:
        case "turn":
            return [Text(f"── {first.text} " + "─" * 12, look.FAINT)]
        case "tool":
            shown, more = (block[:1], len(block) - 1) if folded else (block, 0)
            texts = [Text.assemble(("> ", look.VIOLET), (words.clean(line.text), look.VIOLET)) for line in shown]
            if more:
                texts[0].append(f"  +{more} lines, o shows them", look.FAINT)
            return [*texts]
        case "status":
            return [Text(words.clean(first.text), f"italic {look.FAINT}")]
        case "thought":
            said = words.clean(first.text)
            return [Thought(said) if said.strip() else Text()]
        case _:
            # Rich's Markdown takes as long to load as a third of all the rest, and a study may show none for minutes.
            from tui.speech import Speech

            said = "\n".join(words.clean(line.text) for text in block for line in _lines_of(text))
            return [Speech(said), *([Text()] if not block[-1].text.strip() else [])] if said.strip() else [Text()]


def _lines_of(line: Line) -> Iterator[Line]:
    yield from (Line(line.kind, text) for text in line.text.split("\n"))


def written(text: str) -> list[RenderableType]:
    """A whole text of the agent's, such as its reasoning file."""
    lines = [Line("text", line) for line in text.splitlines()]
    return [piece for block in blocks(lines) for piece in drawn(block)]
