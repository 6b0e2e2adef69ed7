"""Folders in memory: Postgres copies a database of 2,000 files for most tests, which takes a disk ten times as long."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 2**30


@contextmanager
def quick_folder(name: str) -> Iterator[Path]:
    """A folder in memory, or on disk where there is no room; it is gone afterwards."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=MEMORY if roomy else None) as folder:
        # Postgres runs as another user where the tests run as root.
        Path(folder).chmod(0o711)
        yield Path(folder)
