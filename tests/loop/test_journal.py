from __future__ import annotations

import os

import msgspec
import pytest

from loop import events as ev
from loop import journal
from loop.journal import Journal, JournalCorrupt, JournalLocked


def filled(path, count=5):
    written = Journal(path)
    for number in range(count):
        written.append(ev.Noted(text=f"note {number} é"), ev.Warned(text="w"))
    written.close()
    return path.read_bytes()


def opened(path):
    again = Journal(path)
    again.close()
    return again


def test_what_was_appended_is_read_back_in_order(tmp_path):
    path = tmp_path / "journal.jsonl"
    filled(path)
    records = opened(path).records
    assert [record.seq for record in records] == list(range(1, 11))
    assert records[4].event == ev.Noted(text="note 2 é")
    assert journal.read(path) == records
    assert journal.read(tmp_path / "none") == []


def test_a_tail_torn_at_any_byte_costs_only_what_was_torn(tmp_path):
    path = tmp_path / "journal.jsonl"
    data = filled(path, 2)
    whole = journal.read(path)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        again = opened(path)
        kept = data[:size].count(b"\n")
        assert again.records == whole[:kept]
        torn = data[:size].rpartition(b"\n")[2]
        assert bool(again.repaired) == bool(torn)
        assert path.read_bytes() == data[: size - len(torn)]
        if torn:
            (aside,) = tmp_path.glob("journal.corrupt-*")
            assert aside.read_bytes() == torn and aside.name in again.repaired
            aside.unlink()


def test_it_goes_on_after_a_torn_tail(tmp_path):
    path = tmp_path / "journal.jsonl"
    data = filled(path, 1)
    path.write_bytes(data[:-3])
    again = Journal(path)
    (record,) = again.append(ev.Noted(text="on"))
    again.close()
    assert record.seq == 2 and [r.seq for r in journal.read(path)] == [1, 2]


@pytest.mark.parametrize("line", [0, 2])
def test_damage_in_the_middle_is_refused_and_left_as_it_is(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    lines = filled(path).splitlines(keepends=True)
    damaged = bytearray(lines[line])
    for at in range(len(damaged) - 1):
        flipped = damaged.copy()
        flipped[at] ^= 1
        path.write_bytes(b"".join([*lines[:line], bytes(flipped), *lines[line + 1 :]]))
        before = path.read_bytes()
        with pytest.raises(JournalCorrupt, match=f"line {line + 1} is damaged"):
            Journal(path)
        assert path.read_bytes() == before
    path.write_bytes(b"".join(lines))
    assert len(opened(path).records) == 10, "a refused journal is not left locked"


def test_a_second_writer_is_refused_with_the_first_ones_pid(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    with pytest.raises(JournalLocked, match=f"pid {os.getpid()}"):
        Journal(path)
    first.close()
    opened(path)


def test_an_event_of_a_newer_version_is_not_thrown_away(tmp_path):
    path = tmp_path / "journal.jsonl"
    data = filled(path)
    body = msgspec.json.encode({"seq": 11, "time": 0.0, "event": {"type": "Teleported"}})
    path.write_bytes(data + b"%08x %s\n" % (journal.zlib.crc32(body), body))
    with pytest.raises(JournalCorrupt, match="a newer labtop wrote it"):
        Journal(path)


def test_a_field_of_a_newer_version_is_ignored(tmp_path):
    path = tmp_path / "journal.jsonl"
    body = msgspec.json.encode({"seq": 1, "time": 0.0, "event": {"type": "Noted", "text": "x", "colour": "red"}})
    path.write_bytes(b"%08x %s\n" % (journal.zlib.crc32(body), body))
    assert opened(path).records[0].event == ev.Noted(text="x")


def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    data = filled(path)
    again = Journal(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, block: real(file, block[: len(block) // 2]))
    with pytest.raises(journal.JournalFull, match="free some space"):
        again.append(ev.Noted(text="does not fit"))
    monkeypatch.undo()
    assert path.read_bytes() == data
    (record,) = again.append(ev.Noted(text="fits"))
    again.close()
    assert record.seq == 11 and len(journal.read(path)) == 11


def test_time_never_runs_backwards(tmp_path):
    times = iter([100.0, 50.0, 120.0])
    written = Journal(tmp_path / "journal.jsonl", clock=lambda: next(times))
    records = [written.append(ev.Noted(text="x"))[0] for _ in range(3)]
    written.close()
    assert [record.time for record in records] == [100.0, 100.0, 120.0]
