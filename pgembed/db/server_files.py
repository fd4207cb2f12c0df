"""The folders and files of the embedded server: whose they are, who can pass them, and how they are written.

As root, what is done here happens in folders that another user owns, so no link that stands there is followed.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pgembed.db.server_account import SYSTEM_USER, Account, user_name
from pgembed.errors import DatabaseError


def require_ours(account: Account, data_dir: Path) -> None:
    """Refuse the data of another user's server.

    Raises:
        DatabaseError: the folder belongs to another user than `account`, or cannot be looked at.
    """
    try:
        owner = data_dir.stat().st_uid
        # as root a folder that holds no data is judged when a server is to be made in it
        if owner == account.uid or (account.is_other and not (data_dir / "PG_VERSION").exists()):
            return
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unusable(data_dir.parent, error) from error
    whose = user_name(owner)
    raise DatabaseError(
        f"{data_dir} belongs to the user '{whose}', and the server here runs as '{account.name}'.",
        remedy="Set PGEMBED_HOME to a folder of your own, or run this as "
        + ("root." if whose == SYSTEM_USER else f"'{whose}'."),
    )


def make_home(account: Account, home: Path) -> None:
    """Make the folder that the data folder stands in, such that the server's user can pass it.

    Raises:
        DatabaseError: a folder above it is closed to that user.
    """
    if account.is_other and (blocked := account.blocked_at(home / "data")) is not None:
        raise DatabaseError(
            f"As root the server runs as the user '{account.name}', which cannot pass {blocked}.",
            remedy="Set PGEMBED_HOME to a folder that every user can pass, such as /var/lib/pgembed (the default).",
        )
    missing = [folder for folder in (home, *home.parents) if not os.path.lexists(folder)]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            if account.is_other:
                folder.chmod(0o755)  # whatever the umask


def make_private(account: Account, folder: Path) -> None:
    """Make a folder of mode 0700 that belongs to `account`, or make such of one that is there.

    Raises:
        DatabaseError: what is there is another user's, or no folder.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    remedy = "Remove it, or choose another PGEMBED_HOME."
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise DatabaseError(f"{folder} cannot be used: {error.strerror}.", remedy=remedy) from error
    try:
        owner = os.fstat(descriptor).st_uid
        if owner not in (os.geteuid(), account.uid):
            raise DatabaseError(f"{folder} belongs to the user '{user_name(owner)}'.", remedy=remedy)
        os.fchmod(descriptor, 0o700)
        account.own(descriptor)
    finally:
        os.close(descriptor)


def write_whole(account: Account, path: Path, text: str) -> None:
    """Write a file that belongs to `account`, in the place of what stands there."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            account.own(descriptor)
            file.write(text)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for; the file is made if it is missing."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def unusable(home: Path, error: OSError) -> DatabaseError:
    """Return the error for a home that this user cannot use."""
    where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    return DatabaseError(
        f"{home} cannot be used by the user '{user_name(os.geteuid())}': {error.strerror}{where}.",
        remedy="Set PGEMBED_HOME to a folder that this user can write to; pgembed keeps its server and models there.",
    )
