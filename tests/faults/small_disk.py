"""A file system of its own, small enough to be filled up."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotPermitted(Exception):  # noqa: N818
    """Why there is no small disk here."""


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Raises NotPermitted where this user may not mount."""
    place.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotPermitted("there is no `mount` here") from error
    if done.returncode != 0:
        raise NotPermitted(f"mounting a tmpfs: {' '.join(done.stderr.split())}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
