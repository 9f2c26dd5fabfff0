"""The agent's Markdown, as Rich draws it."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement
from rich.text import Text

from tui import diffs, look


class _Code(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in str(self.text).rstrip().split("\n"):
            shown = diffs.coloured_code(line) if self.lexer_name in ("python", "py") else Text(line, look.AMBER)
            shown.pad_left(2)
            yield shown


class Speech(Markdown):
    """Foreign Markdown: without links to follow, and without pictures, of which a terminal shows none."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **{name: element for name, element in Markdown.elements.items() if name != "image"},
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, markup: str) -> None:
        super().__init__(markup, hyperlinks=False, style=look.INK)
