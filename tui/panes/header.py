"""Two lines that tell how the night goes: what the study is at and how far it came; what it is, and its counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text

from tui import look, words
from tui.panes.rows import Rows
from tui.view import View

GAP = 2
"""Columns between what stands left and what stands right, at least."""
BAR = 16
"""Columns of the budget's bar."""


class Header(Rows):
    DEFAULT_CSS: ClassVar[str] = "Header { height: 2; background: $panel; padding: 0 1; }"

    def show(self, view: View) -> None:
        width = self.content_size.width
        if width > 0:
            self.say(Text("\n").join((first_line(view, width), second_line(view, width))))


def first_line(view: View, width: int) -> Text:
    state = view.state
    mode = words.mode_word(state, connected=view.connected)
    if mode == "CONNECTING" and view.missing:
        mode = "NO ENGINE"
    left = Text.assemble((f" {mode} ", look.mode(mode)), "  ")
    if mode == "NO ENGINE":
        left.append(view.missing, look.RED)
    else:
        left.append(words.activity(state, view.step, view.now()), f"bold {look.INK}")
    share = None if mode == "NO ENGINE" else words.share_spent(state, view.step)
    best, gain = state.best, view.tally.gain
    right = Text()
    if best is not None:
        right.append("best ", look.FAINT).append(words.value(best.value), f"bold {look.GREEN}")
        right.append(f" {words.name(best.number)}", look.FAINT)
    elif state.current is not None:
        right.append("no best yet: the baseline is being measured", look.FAINT)
    short, bare = right.copy(), left.copy()
    if best is not None:
        short.truncate(len("best ") + len(words.value(best.value)))
    fuller = right.copy()
    if gain is not None and best is not None and best.number > 0:
        fuller.append("   gain ", look.FAINT).append(gain, f"bold {look.GREEN}")
    gap = view.gap.at_time if share is not None else None
    if gap is not None:
        left.append(f" · {words.ahead(gap)}", look.GREEN if gap >= 0 else look.AMBER)
    wider = left.copy()
    if share is not None:
        wider.append("  ").append_text(look.bar(share, BAR))
    choices = [(wider, fuller), (left, fuller), (wider, right), (left, right), (left, short), (bare, short)]
    return fitted([*choices, (left, Text())], width)


def second_line(view: View, width: int) -> Text:
    state = view.state
    if not state.seq:
        return Text()
    agent = f"agent {words.one_line(state.agent)}"
    left = Text.assemble(
        (words.one_line(state.branch), look.BLUE),
        (f" · {agent} · {state.device} · {words.duration(state.budget)} a trial", look.FAINT),
    )
    walls = Text()
    if state.sandbox == "off":
        left.append(" · NO SANDBOX", look.AMBER)
    elif state.sandbox:
        walls.append(f" · sandbox {words.one_line(state.sandbox)}", look.FAINT)
    if view.link.slow:
        left.append(f" · slow line, {1000 * view.link.latency:.0f} ms", look.AMBER)
    if state.approving:
        left.append(" · APPROVE MODE", look.AMBER)
    if state.breakpoints:
        walls.append(f" · {len(state.breakpoints)} breakpoints", look.FAINT)
    spec = Text(f" · program.md {state.spec}", look.FAINT) if state.spec else Text()
    counts, rate = view.tally.counts, view.tally.rate
    right = Text(f"{view.tally.tried} tried", look.INK)
    for verdict in ("keep", "discard", "crash", "reject"):
        if counts[verdict]:
            right.append(f"  {counts[verdict]} {verdict}", look.status(verdict))
    fuller = right.copy()
    if rate is not None:
        fuller.append(f"   {rate:.3g}/h" if rate < 1000 else f"   {words.amount(rate)}/h", look.INK)
    fullest = fuller.copy()
    if view.tally.bill:
        fullest.append(f"   {view.tally.bill}", look.INK)
    short = Text(words.one_line(state.branch), look.BLUE)
    choices = [(left + spec + walls, fullest), (left + spec, fullest), (left, fullest), (short, fullest)]
    choices += [(left + spec + walls, fuller), (left + spec, fuller), (left, fuller), (short, fuller), (short, right)]
    return fitted([*choices, (short, Text())], width)


def fitted(choices: Sequence[tuple[Text, Text]], width: int) -> Text:
    """The first pair that fits into a line, its second half at the right edge; else the last one, cut."""
    for left, right in choices:
        space = width - left.cell_len - right.cell_len
        if space >= (GAP if right else 0):
            return Text.assemble(left, " " * space, right)
    left, _ = choices[-1]
    cut = left.copy()
    cut.truncate(width, overflow="ellipsis")
    return cut
