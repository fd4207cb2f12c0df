"""Files parsed by several processes, in order, a few batches ahead of who takes them.

A worker is `python -m pgembed.corpus.workers`, which speaks pickle over its pipes: unlike multiprocessing's pools it
ends by itself when its parent is killed (its input ends), needs no guard in the caller's main module, and a file that
kills it (a fault in a grammar's C code) costs that file and not the run.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO

from pgembed.corpus.parse import Job, Parsed, parse_file
from pgembed.corpus.read import Unusable

_AHEAD = 2
"""Batches a worker that may wait to be taken: what bounds the memory."""

_DEATHS = (EOFError, OSError, ValueError, pickle.UnpicklingError)
"""What talking to a process that has ended, or whose pipes were closed, can raise."""


def parse_all(batches: Iterable[list[Job]], jobs: int) -> Generator[list[Parsed]]:
    """Yield each batch parsed, in the order given; in this process if `jobs` is 1."""
    if jobs <= 1:
        for batch in batches:
            yield [parse_file(job) for job in batch]
        return
    workers = [_Worker() for _ in range(jobs)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(batch: list[Job]) -> list[Parsed]:
        worker = idle.get()
        try:
            return worker.parse(batch)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(jobs, thread_name_prefix="pgembed-parse")
    waiting: deque[Future[list[Parsed]]] = deque()
    try:
        for batch in batches:
            waiting.append(threads.submit(run, batch))
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the caller stops early, or Ctrl-C arrives
        for future in waiting:
            future.cancel()
        for worker in workers:
            worker.stop()
        threads.shutdown()


class _Worker:
    """One process that parses, started when first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def parse(self, batch: list[Job]) -> list[Parsed]:
        try:
            return self._ask(batch)
        except _DEATHS:
            if self._is_stopped:
                raise
        # it died: one by one, to find the file that did it
        found: list[Parsed] = []
        for job in batch:
            try:
                found += self._ask([job])
            except _DEATHS:
                if self._is_stopped:
                    raise
                found.append(Parsed(job.path, Unusable("crashed", "the parser's process died on it")))
        return found

    def _ask(self, batch: list[Job]) -> list[Parsed]:
        if self._is_stopped:
            raise EOFError
        if self._process is None:
            # -P: a folder named like a module in the current directory must not be imported. A group of its own: Ctrl-C
            # in a terminal goes to ours, and we stop the workers.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pgembed.corpus.workers"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            pickle.dump(batch, process.stdin)
            process.stdin.flush()
            answer: list[Parsed] = pickle.load(process.stdout)  # noqa: S301 - our own process wrote it
        except BaseException:
            self._end()
            raise
        return answer

    def stop(self) -> None:
        self._is_stopped = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close(pipe)


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # what was not yet written goes to a process that is gone


def main() -> None:
    """Parse batches from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a chunker that prints must not print among the answers
    while True:
        try:
            batch: list[Job] = pickle.load(sys.stdin.buffer)  # noqa: S301 - our parent wrote it
        except EOFError:
            return
        try:
            pickle.dump([parse_file(job) for job in batch], answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:
            os._exit(0)  # the parent is gone; closing the pipe would only fail again


if __name__ == "__main__":
    main()
