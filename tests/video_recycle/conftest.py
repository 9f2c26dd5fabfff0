"""Models this small are faster on one thread; on a busy machine, several times. And a disk that fills up."""

import errno
import os
from collections.abc import Callable

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets so many files come to the disk from now on, and no more."""
    sync = os.fsync

    def fill(count: int) -> None:
        synced = []

        def full(descriptor: int) -> None:
            synced.append(descriptor)
            if len(synced) > count:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", full)

    return fill
