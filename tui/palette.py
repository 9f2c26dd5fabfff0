"""Every action by name: what the command palette finds."""

from __future__ import annotations

from functools import partial

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider, SearchIcon

from tui.actions import ACTIONS, Action
from tui.screens.cockpit import Cockpit


class Actions(Provider):
    async def discover(self) -> Hits:
        for name, action in self._offered():
            yield DiscoveryHit(name, partial(self._cockpit.action_act, action.name), help=self._help(action))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, action in self._offered():
            score = max(matcher.match(name), matcher.match(action.does) * 0.5)
            if score > 0:
                act = partial(self._cockpit.action_act, action.name)
                yield Hit(score, matcher.highlight(name), act, text=name, help=self._help(action))

    @property
    def _cockpit(self) -> Cockpit:
        screen = self.screen
        assert isinstance(screen, Cockpit)
        return screen

    def _offered(self) -> list[tuple[str, Action]]:
        if not isinstance(self.screen, Cockpit):
            return []
        # With nothing to approve it is the approve mode once more.
        hidden = ("palette", "next_pane", "" if self._cockpit.waits else "approve")
        return [
            (f"{self._cockpit.label(action)}  ({action.shown})", action)
            for action in ACTIONS
            if action.name not in hidden
        ]

    def _help(self, action: Action) -> str:
        refused = self._cockpit.refusal(action.name)
        return action.does if refused is None else f"not now: {refused}"


class Palette(CommandPalette):
    """Textual's, without its picture of a looking glass, which is two cells wide."""

    def on_mount(self) -> None:
        self.query_one(SearchIcon).icon = "/"
