"""`pgembed serve` in a process of its own, and what the database of its tests holds."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

MARKUP = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
HOSTILE = "\n".join(
    [
        f"def hostile(self): # {MARKUP}",
        "    red = '\x1b[31m' # an escape of terminals",
        "    access = 'user\u202e \u2066# admin only\u2069'  # what an eye reads in another order",
        f"    enormous = '{'x' * 100_000}'",
        "    return '\u200b'",
    ]
)


@dataclass(frozen=True)
class Served:
    """A database, and what is in it."""

    url: str
    generations: tuple[int, int]
    """The second is active; each is of an encoder of its own."""
    hostile: int
    """The chunk whose content, path and symbol are markup."""
    run: int


def wait_until(done: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `done`, and fail when it does not come."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@dataclass(frozen=True)
class Running:
    """`pgembed serve` in a process of its own."""

    process: "subprocess.Popen[str]"
    url: str
    output: list[str]

    def client(self, **headers: str) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60, headers=headers)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Running]:
    """Run `pgembed serve` on a free port; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgembed", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    output: list[str] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            output.append(line)
            if found := re.search(r"serves (http://\S+?)/ ", line):
                break
        else:
            raise AssertionError("".join(output))
        stderr = process.stderr
        threading.Thread(target=lambda: output.extend(stderr), daemon=True).start()
        running = Running(process, found[1].replace("0.0.0.0", "127.0.0.1"), output)  # noqa: S104 - what it says
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stderr.close()
