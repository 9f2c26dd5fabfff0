"""The journal: one event a line, durable before it is acted on, and the only source of truth.

A line is the CRC-32 of the JSON as 8 hex digits, a space, the JSON of a `Record`, and a line feed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from loop.events import AnyEvent, Record

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


class JournalLocked(JournalError):
    """Another engine writes this journal."""


class JournalCorrupt(JournalError):
    """A line in the middle is damaged, so that what follows cannot be trusted."""


class JournalFull(JournalError):
    """The events could not be made durable. None of them counts, and the file is as it was before."""


BALLAST = 64 * 1024
"""Bytes that are held back on the disk, so that on a full one there is room to say so."""


LETTING_GO = 10.0
"""Seconds in which the lock of an engine that has died must come free."""


class Journal:
    """The one writer of a journal. Opening it takes the lock and mends a torn tail."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Raises: JournalLocked, JournalCorrupt, OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.records: list[Record] = []
        """What was found on opening."""
        self.repaired = ""
        """What was cut off the tail on opening, in words; "" where it was whole."""
        self._clock = clock
        self._broken = False
        self._lock = _lock(path.with_suffix(".lock"))
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, self._lock)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            opened.callback(os.close, self._file)
            self.records, self._size = self._mend()
            opened.pop_all()
        self._ballast = path.with_suffix(".ballast")
        self._held = self._hold_back()
        self._seq = self.records[-1].seq if self.records else 0
        self._time = self.records[-1].time if self.records else 0.0

    def forget(self) -> None:
        """Let go of `records`, once they are folded: of a study of months they are tens of megabytes."""
        self.records = []

    def append(self, *events: AnyEvent) -> list[Record]:
        """Make `events` durable, all or none, and return them as journalled.

        Raises:
            JournalFull: where the disk did not take them.
            JournalError: where an earlier sync failed: what the disk holds is then unknown until it is opened again.
        """
        if self._broken:
            raise JournalError(f"{self.path}: an earlier write failed; start the engine again")
        records = []
        for event in events:
            self._time = max(self._time, self._clock())
            self._seq += 1
            records.append(Record(seq=self._seq, time=self._time, event=event))
        data = b"".join(_line(record) for record in records)
        try:
            if os.write(self._file, data) != len(data):
                raise OSError("the disk took only a part")
        except OSError as error:
            self._seq -= len(records)
            os.ftruncate(self._file, self._size)
            raise JournalFull(
                f"the journal cannot be written: {error.strerror or error}; free some space, and resume"
            ) from error
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = True
            raise JournalError(f"{self.path}: {error.strerror}; the last events may not be on disk") from error
        self._size += len(data)
        self._held = self._held or self._hold_back()
        return records

    def append_at_last(self, *events: AnyEvent) -> list[Record]:
        """As `append`, but with the room that was held back for what must be said on a full disk."""
        with contextlib.suppress(OSError):  # On a disk that is read-only by now it makes no room.
            self._ballast.unlink()
        self._held = True  # Not taken again by this very call, which needs what it has just given.
        try:
            return self.append(*events)
        finally:
            self._held = False

    def _hold_back(self) -> bool:
        try:
            if not self._ballast.exists() or self._ballast.stat().st_size != BALLAST:
                self._ballast.write_bytes(os.urandom(BALLAST))  # Which no file system can compress away.
        except OSError:
            with contextlib.suppress(OSError):
                self._ballast.unlink()
            return False
        return True

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    def _mend(self) -> tuple[list[Record], int]:
        data = self.path.read_bytes()
        records, good = _parse(data)
        tail = data[good:]
        if tail:
            rest = tail.split(b"\n")[1:]
            if any(_record(line) for line in rest):
                raise JournalCorrupt(
                    f"{self.path}: line {len(records) + 1} is damaged and good lines follow it; "
                    "put back a copy of the file, or start another study with --tag"
                )
            # A name of its own even where a study is repaired twice in a second, and on disk before the cut.
            stamp = time.strftime("journal.corrupt-%Y%m%dT%H%M%SZ-", time.gmtime())
            with tempfile.NamedTemporaryFile(prefix=stamp, dir=self.path.parent, delete=False) as aside:
                aside.write(tail)
                aside.flush()
                os.fsync(aside.fileno())
            os.ftruncate(self._file, good)
            os.fsync(self._file)
            kept = Path(aside.name).name
            self.repaired = f"the journal's last {len(tail)} bytes were torn; they were cut off and kept in {kept}"
        return records, good


def read(path: Path) -> list[Record]:
    """The records of a journal, for readers: no lock, no unfinished last line; none where there is no file."""
    with contextlib.suppress(FileNotFoundError):
        return _parse(path.read_bytes())[0]
    return []


def _line(record: Record) -> bytes:
    body = _encoder.encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _record(line: bytes) -> Record | None:
    if len(line) < 10 or line[:8] != b"%08x" % zlib.crc32(line[9:]) or line[8:9] != b" ":
        return None
    try:
        return _decoder.decode(line[9:])
    except msgspec.DecodeError as error:
        raise JournalCorrupt(
            f"an event this version does not know ({error}); a newer labtop wrote it: use that"
        ) from error


def _parse(data: bytes) -> tuple[list[Record], int]:
    """The records up to the first bad line, and the offset where that begins."""
    records: list[Record] = []
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        record = _record(data[good:end])
        if record is None or record.seq != len(records) + 1:
            break
        records.append(record)
        good = end + 1
    return records, good


def _holder(lock: int) -> str:
    """The pid of whose lock it is; the engine that has just taken it writes that in the next moment."""
    for _ in range(100):
        if holder := os.pread(lock, 32, 0).decode().strip():
            return holder
        time.sleep(0.01)
    return "unknown"


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + LETTING_GO
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(lock)
            # A child that a killed engine had forked, and that has yet to become another program, still has its lock.
            if not (holder.isdigit() and psutil.pid_exists(int(holder))) and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            os.close(lock)
            raise JournalLocked(f"another engine (pid {holder}) runs this study; `labtop attach` shows it") from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        return lock
