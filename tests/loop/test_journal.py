"""The journal's promise, and the file broken at every place it can break."""

import os
import resource
import subprocess
import sys
import zlib

import pytest

from loop.events import Noted, Paused, Record, Stepped, Warned
from loop.journal import Journal, JournalCorrupt, JournalError, JournalFull, JournalLocked, read

EVENTS = [Paused(reason="tea"), Noted(text="größer\nist 🐢 besser", number=3), Stepped(gates=2), Warned(text="x" * 90)]


def written(path, events=EVENTS, clock=lambda: 100.0):
    journal = Journal(path, clock=clock)
    for event in events:
        journal.append(event)
    journal.close()
    return path.read_bytes()


def reopened(path):
    journal = Journal(path, clock=lambda: 200.0)
    journal.close()
    return journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".labtop" / "t" / "journal.jsonl"


def test_what_was_appended_comes_back_and_the_sequence_goes_on(path):
    written(path)
    journal = Journal(path, clock=lambda: 250.0)
    assert journal.repaired == "" and [record.event for record in journal.records] == EVENTS
    added = journal.append(Paused(), Noted(text="both"))
    journal.close()
    assert [record.seq for record in added] == [5, 6]
    assert read(path) == [*journal.records, *added]
    assert [(record.seq, record.time) for record in read(path)] == [(n, 100.0) for n in range(1, 5)] + [
        (5, 250.0),
        (6, 250.0),
    ]


def test_a_clock_set_back_never_turns_time_around(path):
    times = iter([50.0, 10.0, 60.0])
    written(path, EVENTS[:3], clock=lambda: next(times))
    assert [record.time for record in read(path)] == [50.0, 50.0, 60.0]
    journal = Journal(path, clock=lambda: 1.0)
    assert journal.append(Paused())[0].time == 60.0
    journal.close()


def test_a_reader_finds_none_where_there_is_no_file_and_no_unfinished_line(path):
    assert read(path) == [] and not path.exists()
    data = written(path)
    path.write_bytes(data[:-1])
    assert [record.event for record in read(path)] == EVENTS[:-1]
    assert path.read_bytes() == data[:-1]


def test_each_line_is_its_own_checksum_and_number(path):
    for number, line in enumerate(written(path).splitlines(), 1):
        checksum, body = line.split(b" ", 1)
        assert int(checksum, 16) == zlib.crc32(body) and b'"seq":%d' % number in body


def test_cut_at_every_byte_the_exact_prefix_is_recovered_and_the_rest_kept_aside(path):
    data = written(path)
    ends = [0]
    while len(ends) <= len(EVENTS):
        ends.append(data.index(b"\n", ends[-1]) + 1)
    for cut in range(ends[1], len(data) + 1):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        journal = Journal(path)
        assert [record.event for record in journal.records] == EVENTS[:whole], cut
        assert path.read_bytes() == data[: ends[whole]]
        aside = list(path.parent.glob("journal.corrupt-*"))
        if torn := data[ends[whole] : cut]:
            assert [file.read_bytes() for file in aside] == [torn]
            assert f"last {len(torn)} bytes" in journal.repaired and aside[0].name in journal.repaired
            aside[0].unlink()
        else:
            assert journal.repaired == "" and not aside
        assert journal.append(Paused())[0].seq == whole + 1
        journal.close()
        assert len(read(path)) == whole + 1
        assert reopened(path).repaired == ""


def test_two_repairs_in_a_row_keep_both_pieces(path):
    for torn in (b"first torn", b"second torn"):
        with (written(path, []) or True) and path.open("ab") as file:
            file.write(torn)
        reopened(path)
    kept = {file.read_bytes() for file in path.parent.glob("journal.corrupt-*")}
    assert kept == {b"first torn", b"second torn"}


def test_a_bit_flipped_before_good_lines_refuses_to_write_and_changes_nothing(path):
    data = written(path)
    second = data.index(b"\n") + 1
    third = data.index(b"\n", second) + 1
    for at in range(second, third):
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            path.write_bytes(broken)
            with pytest.raises(JournalCorrupt, match=r"line 2 is damaged.*--tag"):
                Journal(path)
            assert path.read_bytes() == broken
    assert [record.event for record in read(path)] == EVENTS[:1]
    path.write_bytes(data)
    assert reopened(path).records[-1].seq == 4, "and the refusal left no lock behind"


@pytest.mark.parametrize("order", [(0, 2, 3), (0, 0, 1, 2), (1, 2, 3), (0, 2, 1, 3)])
def test_a_line_lost_repeated_or_moved_is_damage_though_each_checksum_is_right(path, order):
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[n] for n in order))
    with pytest.raises(JournalCorrupt, match="damaged"):
        Journal(path)


def test_an_event_of_a_newer_version_is_refused_and_not_cut_off(path):
    data = written(path)
    body = b'{"seq":5,"time":300.0,"event":{"type":"Teleported","to":"moon"}}'
    path.write_bytes(data + b"%08x %s\n" % (zlib.crc32(body), body))
    before = path.read_bytes()
    for use in (Journal, read):
        with pytest.raises(JournalCorrupt, match="newer labtop"):
            use(path)
    assert path.read_bytes() == before and not list(path.parent.glob("*corrupt*"))


def test_a_newer_version_may_add_fields(path):
    data = written(path)
    body = b'{"seq":5,"time":300.0,"event":{"type":"Paused","reason":"r","mood":"calm"}}'
    path.write_bytes(data + b"%08x %s\n" % (zlib.crc32(body), body))
    assert reopened(path).records[-1] == Record(seq=5, time=300.0, event=Paused(reason="r"))


def test_the_second_writer_is_told_who_is_first(path):
    first = Journal(path)
    with pytest.raises(JournalLocked, match=rf"pid {os.getpid()}\)"):
        Journal(path)
    code = "import sys, pathlib, loop.journal as j\ntry: j.Journal(pathlib.Path(sys.argv[1]))\n"
    code += "except j.JournalLocked as error: print(error)"
    other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert f"(pid {os.getpid()})" in other.stdout
    assert read(path) == []
    first.append(Paused())
    first.close()
    assert len(reopened(path).records) == 1


def test_a_writer_that_was_killed_leaves_no_lock(path):
    code = "import sys, os, signal, pathlib\nfrom loop.events import Paused\nfrom loop.journal import Journal\n"
    code += "Journal(pathlib.Path(sys.argv[1])).append(Paused(reason='last words'))\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    assert [record.event for record in reopened(path).records] == [Paused(reason="last words")]


def test_a_full_disk_takes_all_events_of_an_append_or_none(path):
    before = written(path)
    journal = Journal(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(JournalFull, match="free some space"):
            journal.append(Paused(), Noted(text="y" * 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert journal.append(Paused())[0].seq == 5
    journal.close()
    assert [record.seq for record in reopened(path).records] == [1, 2, 3, 4, 5]


def test_what_append_returns_is_on_disk_before_it_returns(path, monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (real(file), synced.append(path.read_bytes())))
    data = written(path)
    assert synced[-1] == data and len(synced) == len(EVENTS)


def test_after_a_failed_sync_nothing_is_acknowledged_any_more(path, monkeypatch):
    journal = Journal(path)
    journal.append(Paused())

    def fail(file):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(JournalError, match="may not be on disk"):
            journal.append(Noted(text="lost?"))
    # The disk answers again, but what it holds is unknown: a retried sync would lie.
    with pytest.raises(JournalError, match="start the engine again"):
        journal.append(Paused())
    journal.close()
    assert reopened(path).records[0].event == Paused()
