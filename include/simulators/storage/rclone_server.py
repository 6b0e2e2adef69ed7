"""A real S3 server over a folder, `rclone serve s3`: each object a small file below folder/bucket."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from include.simulators import serving
from include.simulators.storage.bucket import FILLER
from include.simulators.storage.control import Store


def lay(folder: Path, bucket: str, keys: Iterable[str]) -> None:
    """Write an object under each key, all or none; does nothing where the bucket has its folder.

    So a restart brings back nothing that was deleted meanwhile.
    """
    if (folder / bucket).exists():
        return
    unfinished = folder / f".{bucket}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for key in keys:
        path = unfinished / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILLER)
    unfinished.rename(folder / bucket)


def become(folder: Path, listener: socket.socket, access_key: str, secret_key: str, binary: Path) -> None:
    """Turn this process into rclone, which serves the folder on the listening socket; doesn't return."""
    os.dup2(listener.fileno(), 0)
    arguments = _command(folder, binary)
    os.execve(arguments[0], arguments, _environment(access_key, secret_key))


@contextmanager
def rclone(
    folder: Path, bucket: str, keys: Iterable[str], access_key: str, secret_key: str, binary: Path
) -> Iterator[Store]:
    """Serve the keys' objects on a free loopback port, in a process that is gone afterwards; the folder stays.

    rclone refuses an access key of less than three characters, and keys that are no plain path.
    """
    lay(folder, bucket, keys)
    with serving.listen("127.0.0.1", 0) as listener:
        environment = _environment(access_key, secret_key)
        process = subprocess.Popen(_command(folder, binary), env=environment, stdin=listener)
        url = serving.url_of(listener)
    try:
        yield Store(url, access_key, secret_key, bucket, control=None)
    finally:
        process.kill()
        process.wait()


def _environment(access_key: str, secret_key: str) -> dict[str, str]:
    """Our own environment with the keys, which a command line would show to all. rclone reads a line of CSV."""
    return {**os.environ, "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}


def _command(folder: Path, binary: Path) -> list[str]:
    """How rclone is started in a process whose standard input is a listening socket.

    It takes the socket over as it would systemd's: as descriptor 3, told by the process id. So no port is chosen
    twice, and who has the URL can connect at once.
    """
    script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'
    serve = [str(binary), "serve", "s3", str(folder)]
    # No configuration of the user's; no digests, for which it would read every file that it lists; what somebody
    # changes in the folder is seen within a second.
    habits = ["--config", "", "--etag-hash", "", "--dir-cache-time", "1s", "--log-level", "ERROR"]
    return ["/bin/sh", "-c", script, "sh", *serve, *habits]
