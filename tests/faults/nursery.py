"""Commands as processes of their own that begin at once: each is forked from one that has its imports done.

So a moment drawn over the duration of a command falls into its work, not into three seconds of `import torch`. The
nursery itself neither connects nor computes; what is forked is the command as `python -m pgembed` would run it.
"""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# what the commands import when they come to it
_IMPORTS = (
    "pgembed.cli.app", "pgembed.training.loop", "pgembed.training.export", "pgembed.vectors.reindex",
    "pgembed.mining.pairs", "pgembed.mining.triplets", "pgembed.corpus.ingest", "pgembed.cli.checks",
    "pgembed.cli.invariants", "pgembed.cli.kept_files", "pgembed.cli.training_report", "pgembed.training.distributed",
    "pgembed.encoders.onnx_encoder", "pgembed.vectors.artefacts", "pgembed.db.migrations", "pgembed.db.drift",
    "transformers.models.bert.modeling_bert", "torch.onnx.utils", "pgvector.psycopg", "alembic.script",
    "pgembed.vectors.watching", "onnxruntime", "tokenizers",
)  # fmt: skip


class Process:
    """A command at work."""

    def __init__(self, pid: int, output: Path, began: float) -> None:
        self.pid, self.began = pid, began
        self._output = output
        self._code: int | None = None
        self._ended = threading.Event()
        self.seconds = 0.0

    def end(self, code: int) -> None:
        """Note that it has ended."""
        self.seconds = time.monotonic() - self.began
        self._code = code
        self._ended.set()

    def poll(self) -> int | None:
        """Return the exit code, as subprocess has it; None while it runs."""
        return self._code

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code.

        Raises:
            TimeoutError: it still runs; it is killed.
        """
        if not self._ended.wait(timeout_s):
            self.kill()
            self._ended.wait(10)
            raise TimeoutError(f"it still ran after {timeout_s:.0f} s; it said: {self.said[-500:]}")
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    @property
    def said(self) -> str:
        """What it has printed, on both streams."""
        return self._output.read_text(encoding="utf-8", errors="replace")


class Nursery:
    """Starts commands; to be closed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._number = 0
        self._running: dict[int, Process] = {}
        self._started: queue.Queue[int] = queue.Queue()
        self._ended_early: dict[int, int] = {}
        self._lock = threading.Lock()
        tests = Path(__file__).parents[1]
        program = f"import sys; sys.path.insert(0, {str(tests)!r}); import faults.nursery as n; n.serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}, bufsize=1,
            cwd=tests.parent,
        )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start `pgembed` with these arguments."""
        self._number += 1
        output = self._folder / f"output-{self._number}"
        output.touch()
        request = {"arguments": arguments, "environment": environment, "output": str(output)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        pid = self._started.get(timeout=60)
        process = Process(pid, output, time.monotonic())
        with self._lock:
            self._running[pid] = process
            if pid in self._ended_early:
                process.end(self._ended_early.pop(pid))
        return process

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._listener.join(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, *numbers = line.split()
            if what == "started":
                self._started.put(int(numbers[0]))
            else:
                pid, code = map(int, numbers)
                with self._lock:
                    process = self._running.pop(pid, None)
                    if process is None:
                        self._ended_early[pid] = code
                    else:
                        process.end(code)


def serve() -> None:
    """Be the nursery: read a request a line, fork, and tell of starts and ends, until standard input ends."""
    import importlib

    for module in _IMPORTS:
        importlib.import_module(module)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pending = b""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _tell_of_ends()
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                os._exit(0)  # nothing of what was imported has anything to put away
            pending += data
            *lines, pending = pending.split(b"\n")
            for line in lines:
                _fork(json.loads(line))


def _fork(request: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        os.write(1, f"started {pid}\n".encode())
        return
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(request["environment"])
        code = _run(request["arguments"])
    finally:
        os._exit(code)


def _run(arguments: list[str]) -> int:
    import traceback

    from pgembed.cli.app import main

    sys.argv = ["pgembed", *arguments]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - the end of a process: what an interpreter prints
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _tell_of_ends() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        os.write(1, f"ended {pid} {os.waitstatus_to_exitcode(status)}\n".encode())
