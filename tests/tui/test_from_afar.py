"""The cockpit as it reaches a person: over ssh and in a browser, its screen read from what a terminal would be sent."""

import asyncio
import fcntl
import getpass
import html
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import psutil
import pyte
import pytest

from tui.screens import ask

COLUMNS, LINES = 120, 40
PATIENCE = 300.0


class Sight:
    """A screen, as the bytes that are sent to it make it."""

    def __init__(self):
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data):
        self._stream.feed(data)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self._screen.display)


class Terminal(Sight):
    """A pseudo-terminal with a program on it."""

    def __init__(self, command):
        super().__init__()
        self._keys, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True)
        os.close(its)

    def press(self, keys):
        os.write(self._keys, keys.encode())

    def shows(self, *words):
        end = time.monotonic() + PATIENCE
        while missing := [word for word in words if word not in self.text]:
            assert time.monotonic() < end, f"the screen never showed {missing}; it shows\n{self.text}"
            if select.select([self._keys], [], [], 1)[0]:
                try:
                    self.feed(os.read(self._keys, 1 << 16))
                except OSError:
                    pytest.fail(f"it ended and never showed {missing}; it shows\n{self.text}")
        return self.text

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._keys)


@pytest.fixture
def ssh(tmp_path: Path):
    """Begins a session on this machine with a command in it, by a server and keys that are thrown away."""
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH here")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    server = folder / "server"
    server.write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    checked = subprocess.run([sshd, "-t", "-f", server], capture_output=True, text=True)
    if checked.returncode:
        pytest.skip(f"sshd does not run here: {checked.stderr.strip()}")
    # A server for each session, on the client's own pipe: no port is opened, and none outlives its client.
    options = {
        "ProxyCommand": shlex.join([sshd, "-i", "-f", str(server)]),
        "IdentityFile": folder / "user", "IdentitiesOnly": "yes", "BatchMode": "yes",
        "UserKnownHostsFile": folder / "known", "StrictHostKeyChecking": "no", "LogLevel": "ERROR",
    }  # fmt: skip
    line = ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())]
    line += ["-tt", f"{getpass.getuser()}@localhost"]
    opened = []

    def session(*words):
        opened.append(Terminal([*line, shlex.join(words)]))
        return opened[-1]

    yield session
    for terminal in opened:
        terminal.close()


def test_a_session_that_is_cut_leaves_the_engine_at_work_and_the_next_one_finds_it(labtop, slow, ssh, repository):
    def cockpit(*words):
        settings = [f"{name}={os.environ[name]}" for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME")]
        here = ["env", "-C", str(repository), *settings, "TERM=xterm-256color"]
        return ssh(*here, sys.executable, "-m", "tui.cli", *words)

    terminal = cockpit("run", "--tag", "t")
    terminal.shows("RUNNING", "training 0001 · ")
    engine = psutil.Process(labtop.state()["engine_pid"])
    view, trial = engine.parent(), engine.children(recursive=True)
    assert trial
    terminal.press("x")
    terminal.shows("reject 0001")
    time.sleep(ask.DEAF)
    terminal.press("no good")
    terminal.shows("no good")
    terminal.press("\x12")
    screen = terminal.shows("0001 reject: no good", "training 0002 · ")
    assert re.search(r"│ 0001 .* reject ", screen)
    assert not any(process.is_running() for process in trial)

    terminal.process.send_signal(signal.SIGKILL)
    view.wait(PATIENCE)
    assert engine.is_running()

    terminal = cockpit("attach")
    terminal.shows("RUNNING", "training 0002 · ", "1 reject")
    terminal.press("q")
    terminal.shows(f"detached; the engine goes on, pid {engine.pid}; back to it: labtop attach --tag t")
    assert terminal.process.wait(PATIENCE) == 0


async def test_in_a_browser_it_draws_and_takes_keys_at_an_address_of_its_own(lab, labtop, until):
    async with lab.engine() as engine:
        serving = labtop.begin("serve", "--port", "0")
        try:
            line = await asyncio.to_thread(serving.stdout.readline)
            address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", line)[0]
            origin = address[: address.index("/", 8)]
            async with aiohttp.ClientSession() as browser:
                for unlocked in ("/", "/ws", "/static/js/textual.js"):
                    assert (await browser.get(origin + unlocked)).status == 404
                page = await (await browser.get(address)).text()
                assert "labtop t" in page
                named = re.findall(r"""(?:src=|href=|url\()["']([^"']+)""", page)
                fetched = {urljoin(address, html.unescape(name)) for name in named}
                assert any(name.endswith(".js") for name in fetched) and any(".ttf" in name for name in fetched)
                for name in fetched:  # It talks to nobody else, and has all that it asks for.
                    assert name.startswith(address) and (await browser.get(name)).status == 200, name
                socket = html.unescape(re.search(r'data-session-websocket-url="(.*?)"', page)[1])
                async with browser.ws_connect(f"{socket}?width={COLUMNS}&height={LINES}") as session:
                    sight = Sight()

                    async def shows(*words):
                        while not all(word in sight.text for word in words):
                            message = await asyncio.wait_for(session.receive(), PATIENCE)
                            assert message.type is aiohttp.WSMsgType.BINARY, f"it ended; it shows\n{sight.text}"
                            sight.feed(message.data)

                    await shows("labtop/t · agent search", "6 log", "q detach")
                    await session.send_json(["focus", {}])
                    await session.send_json(["stdin", "p"])
                    await until(lambda: engine.state.mode == "paused", "a key reaches the engine")
                    await shows("PAUSED", "p resume")
        finally:
            serving.terminate()
            assert await asyncio.to_thread(serving.wait, PATIENCE) == 0
