"""A PostgreSQL server of the tests' own, from the binaries that the system has installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psycopg

from ports import free_port

USER = "redline"
PASSWORD = "s3cret/@:"  # what a URL must escape
ESCAPED = "s3cret%2F%40%3A"


def installed() -> Path | None:
    """The folder of the newest server's programs; Debian keeps them off the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0])
    )
    path = shutil.which("initdb") or (found and found[-1])
    return Path(path).resolve().parent if path else None


@dataclass
class PostgreSQL:
    """A cluster in a temporary folder. ``within``: the words of a command to start it with."""

    programs: Path
    listen: str = "127.0.0.1"  # to which of its machine's addresses
    within: Sequence[str] = ()
    port: int = 0
    folder: Path = field(init=False)
    databases: int = 0  # made so far

    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redline-postgresql-", dir="/tmp"))
        (self.folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
            for path in (self.folder, self.folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        self._run(
            "initdb",
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
            f"--username={USER}",
            "--auth=scram-sha-256",
            f"--pwfile={self.folder / 'password'}",
            f"--pgdata={self.folder / 'data'}",
        )
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        self.port = self.port or free_port()
        settings = {
            "listen_addresses": self.listen,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # nobody pulls this machine's plug
        }
        with (self.folder / "data" / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{key} = '{value}'\n" for key, value in settings.items())

    @contextmanager
    def running(self) -> Iterator[Self]:
        self.create()
        try:
            self.start()
            yield self
        finally:
            self.remove()

    def start(self) -> None:
        self._control("start")

    def stop(self, mode: str = "immediate") -> None:
        self._control("stop", f"--mode={mode}")

    def restart(self) -> None:
        """As after a power cut: every connection is gone, and what was not committed too."""
        self._control("restart", "--mode=immediate")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, address: str = "127.0.0.1") -> str:
        return f"postgresql://{USER}:{ESCAPED}@{address}:{self.port}/{database}"

    def local_url(self, database: str) -> str:
        """By a socket in the file system, which no cut of a network reaches."""
        return f"postgresql://{USER}:{ESCAPED}@/{database}?host={self.folder}&port={self.port}"

    def new_database(self) -> str:
        self.databases += 1
        name = f"test{self.databases}"
        with psycopg.connect(self.local_url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def _control(self, action: str, *options: str) -> None:
        log = self.folder / "server.log"
        self._run(
            "pg_ctl",
            action,
            "--wait",
            "--timeout=600",
            f"--pgdata={self.folder / 'data'}",
            f"--log={log}",
            *options,
        )

    def _run(self, program: str, *options: str) -> None:
        as_whom = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
        words = [
            *self.within,
            *(as_whom if os.geteuid() == 0 else ()),
            str(self.programs / program),
            *options,
        ]
        # The server keeps what it is started with: a pipe would never be closed.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                words, cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
            said.seek(0)
            assert done.returncode == 0, f"{program}: {said.read()}"
