"""The cockpit in a browser on this machine: textual-serve, at an address that nobody else can guess."""

from __future__ import annotations

import re
import secrets
import socket

from aiohttp import web
from textual_serve.server import Server

FOREIGN = re.compile(r'<link[^>]+href="https:[^>]+>')
"""Where textual-serve's page fetches its font from; it has the same one among its own files."""
FONT = "fonts/RobotoMono-VariableFont_wght.ttf"


class Browser(Server):
    """Serves what `command` draws, once for each page that is opened, until it is interrupted.

    Whoever reaches it steers the study. Other users of the machine can reach any port of it, and so can any page that
    is open in the person's browser: the key in the address keeps both out.
    """

    def __init__(self, command: str, *, port: int, title: str) -> None:
        """`port`: of 127.0.0.1; 0: any that is free. Raises: OSError."""
        self._listening = socket.create_server(("127.0.0.1", port))
        host, port = self._listening.getsockname()
        super().__init__(command, host=host, port=port, title=title)
        self._key = secrets.token_urlsafe(16)

    @property
    def address(self) -> str:
        return f"{self.public_url}/{self._key}/"

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the banner of textual-serve has no address that works."""

    async def _make_app(self) -> web.Application:
        app = web.Application()
        app.add_subapp(f"/{self._key}", await super()._make_app())
        return app

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, which asks nobody but this server for anything: a lab may be offline, and is nobody's business."""
        page = await super().handle_index(request)
        assert isinstance(page, web.Response)
        font = request.app.router["static"].url_for(filename=FONT)
        own = f'<style>@font-face {{ font-family: "Roboto Mono"; src: url("{font}"); }}</style>'
        page.text = FOREIGN.sub(own, page.text or "")
        return page

    def run(self) -> None:
        web.run_app(self._make_app(), sock=self._listening, print=None, access_log=None)
