"""The agent's Markdown, as Rich draws it."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement
from rich.segment import Segment
from rich.text import Text

from tui import diffs, look


class _Code(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in str(self.text).rstrip().split("\n"):
            shown = diffs.coloured_code(line) if self.lexer_name in ("python", "py") else Text(line, look.AMBER)
            shown.pad_left(2)
            yield shown


class _Foreign(Markdown):
    """Without links to follow, and without pictures, of which a terminal shows none."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **{name: element for name, element in Markdown.elements.items() if name != "image"},
        "fence": _Code,
        "code_block": _Code,
    }


class Speech:
    """Foreign Markdown, without the empty lines that Rich puts around some elements: blocks have their own distance."""

    def __init__(self, markup: str) -> None:
        self.markup = markup

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = _Foreign(self.markup, hyperlinks=False, style=look.INK)
        lines = console.render_lines(shown, options, pad=False)
        said = [at for at, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        for line in lines[said[0] : said[-1] + 1] if said else ():
            yield from line
            yield Segment.line()
