"""What a trial may use, and what becomes of one that wants more, that hangs, or that was frozen on its way."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from loop import commands
from loop.events import TrialStarted
from loop.journal import read
from loop.trials import local
from loop.trials.sandbox import SandboxError, choose

MIB = 2**20


@pytest.fixture(params=["bubblewrap", "off"])
def kind(request):
    """With walls, and with nothing but a runner."""
    try:
        return choose(request.param)
    except SandboxError as error:
        pytest.skip(str(error))


async def test_a_fork_bomb_is_ended_and_named(bench):
    # It stops by itself at 512, so that a test that fails does not take the machine with it.
    result = await bench.run(
        "import os, time\nfor _ in range(9): os.fork(); time.sleep(0.1)\ntime.sleep(600)", processes=40
    )
    assert (result.outcome, result.reason) == ("crash", "it started more than 40 processes")
    assert not bench.living()


FORKING = """
import os, time
for _ in range(100):
    if not os.fork():
        open(f"started-{os.getpid()}", "w").close()
        while True:
            if not os.fork():
                time.sleep(0.5)
                os._exit(0)
            os.wait()
while len([name for name in os.listdir() if name.startswith("started")]) < 100:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""


async def test_a_hundred_processes_that_fork_are_gone_when_kill_returns(bench, until):
    trial, following = await bench.start(FORKING)
    await until(lambda: "ready" in bench.log(), "the tree stands")
    assert len(bench.living()) > 100
    begun = time.monotonic()
    await trial.kill("enough")
    print(f"{bench.kind}: gone {time.monotonic() - begun:.2f} s after the kill")
    assert not bench.living() and (await following).reason == "enough"


FILLERS = {
    "memory": "hoard = []\nwhile True: hoard.append(bytearray(8 << 20)); time.sleep(0.02)",
    "shared memory": "file = open('/dev/shm/hoard', 'wb')\nwhile True: file.write(bytes(8 << 20)); time.sleep(0.02)",
    "a file in memory": "file = os.memfd_create('hoard')\nwhile True: os.write(file, bytes(8 << 20)); time.sleep(0.02)",
}
BRAKE = """
import os, time
real, left = time.sleep, 64
def sleep(seconds):
    global left
    left -= 1
    real(seconds if left else 600)
time.sleep = sleep
"""
"""A test that fails stops filling where this does, long before the machine is full."""


@pytest.mark.parametrize("what", FILLERS)
async def test_who_takes_too_much_memory_is_ended_and_named(bench, what):
    if what == "shared memory" and bench.kind == "off":
        pytest.skip("/dev/shm is everybody's there")
    result = await bench.run(BRAKE + FILLERS[what], memory=128 * MIB, timeout=60.0)
    assert (result.outcome, result.reason) == ("crash", "it took more than 0.125 GiB of memory")
    assert not bench.living()


async def test_memory_that_others_share_is_not_counted_as_the_trials(bench):
    full = Path("/dev/shm") / f"labtop-{bench.mark}"
    try:
        full.write_bytes(bytes(40 * MIB))
        result = await bench.run(f"import time\ntime.sleep(3)\n{bench.measure}", memory=40 * MIB)
    finally:
        full.unlink()
    assert (result.outcome, result.reason) == ("ok", "")


async def test_one_large_file_is_stopped_as_it_is_written(bench):
    result = await bench.run("open('large', 'wb').write(bytes(9 << 20))\nimport time\ntime.sleep(600)", disk=8 * MIB)
    assert result.outcome == "crash"
    assert ("File too large" if bench.kind == "bubblewrap" else "it wrote more than 0.00781 GiB") in result.reason


MANY = "for n in range(40): open(os.path.join({folder}, f'file-{{n}}'), 'wb').write(bytes(1 << 20))\n"
UNLINKED = """
files = []
for n in range(40):
    files.append(open("file", "wb", buffering=0))
    os.unlink("file")
    files[-1].write(bytes(1 << 20))
"""


@pytest.mark.parametrize("where", ["tempfile.gettempdir()", "os.environ['LABTOP_CONTROL']", "unlinked"])
async def test_many_files_are_found_wherever_they_lie(bench, where):
    if bench.kind == "off" and "tempfile" in where:
        pytest.skip("/tmp is everybody's there")
    fill = UNLINKED if where == "unlinked" else MANY.format(folder=where)
    result = await bench.run(f"import os, tempfile, time\n{fill}time.sleep(600)", disk=8 * MIB, timeout=40.0)
    assert result.outcome == "crash" and result.reason.startswith("it wrote more than 0.00781 GiB")


@pytest.mark.parametrize("piece", ["('x' * 1023 + '\\n') * 64", "'x' * 65536"], ids=["lines", "one line"])
async def test_a_flood_of_output_is_cut_off_and_named(bench, monkeypatch, piece):
    monkeypatch.setattr(local, "LOG_LIMIT", 4 * MIB)
    trial, following = await bench.start(f"import sys\nwhile True: sys.stdout.write({piece})")
    peak = 0
    while not following.done():
        await asyncio.sleep(0.01)
        try:
            status = Path(f"/proc/{trial._process.pid}/status").read_text()
        except OSError:
            continue
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
    result = await following
    assert (result.outcome, result.reason) == ("crash", "it printed more than 4 MiB")
    assert 0 < trial.spec.log.stat().st_size <= 4 * MIB and 0 < peak < 100_000
    assert not bench.living()


CLOSES = """
import os, sys, time
sys.stdout.flush()
os.close(1)
os.close(2)
time.sleep(1)
open("done", "w")
os._exit(0)
"""


async def test_a_script_may_close_its_output_and_work_on(bench):
    result = await bench.run(bench.measure + CLOSES)
    assert (result.outcome, result.value, result.reason) == ("ok", 1.25, "")
    assert list(bench.study.glob("**/source/done"))


DEADLOCK = """
import threading
lock = threading.Lock()
def train():
    lock.acquire()
    lock.acquire()  # line 6
print("trains", flush=True)
train()
"""


async def test_a_deadlock_is_found_and_the_log_shows_where(bench):
    result = await bench.run(DEADLOCK, silence=3.0)
    assert (result.outcome, result.reason) == ("timeout", "it printed nothing and did nothing for 3 s")
    assert "line 6 in train" in bench.log() and not bench.living()


async def test_a_silent_script_that_computes_does_not_hang(bench):
    result = await bench.run(f"import time\nwhile time.process_time() < 3.5: pass\n{bench.measure}", silence=3.0)
    assert (result.outcome, result.value) == ("ok", 1.25)


async def test_a_paused_trial_does_not_hang(bench, until):
    script = "import os, time\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    trial, following = await bench.start(script + bench.measure, silence=3.0)
    await until(lambda: "ready" in bench.log(), "it runs")
    assert await trial.pause() is False
    await asyncio.sleep(4)  # Longer than it may be silent; however much longer, it must not matter.
    assert not following.done()
    (trial.spec.source / "go").touch()
    await trial.resume()
    assert ((await following).outcome, trial.result().value) == ("ok", 1.25)
    assert json.loads((trial.spec.folder / "exit.json").read_text())["paused_seconds"] > 3


async def test_a_trial_that_a_pause_froze_is_run_again_before_it_is_kept(lab, walled, until):
    script = (
        "import os, time\nprint('step 0 | loss: 2.0', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    )
    walled(script + "print('val_bpb: 1.25')\n")
    async with lab.engine(experiments=0) as engine:

        def steps(trial: int) -> bool:
            log = engine.study.log(0, trial)
            return log.exists() and "loss" in log.read_text()

        await until(lambda: steps(1), "the baseline trains")
        assert "frozen" in (await engine.do(commands.Pause())).text
        assert engine.state.current.trial.paused
        await engine.do(commands.Resume())
        (engine.study.trial(0, 1) / "source" / "go").touch()
        await until(lambda: steps(2), "it trains again")
        assert engine.state.best is None
        (engine.study.trial(0, 2) / "source" / "go").touch()
        await engine.task
    baseline = engine.state.experiments[0]
    assert baseline.verdict == "keep" and [trial.disturbed for trial in baseline.trials] == [True, False]
    events = [record.event for record in read(engine.study.journal)]
    assert [event.trial for event in events if isinstance(event, TrialStarted)] == [1, 2]
