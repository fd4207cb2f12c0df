"""`pgembed status --watch`."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_status import assert_shape
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts

from pgembed.cli.status import Rates
from pgembed.overview import collect
from pgembed.vectors.reindex import reindex_with


def watching(dsn: str, *arguments: str, **given: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pgembed", "status", "--watch", "--every", "0.2", "--dsn", dsn, *arguments],
        text=True,
        **given,
    )


def test_watch_tells_in_json_how_fast_a_generation_grows(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(8))
    process = watching(database_url, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        first = json.loads(process.stdout.readline())
        assert_shape(first)
        assert first["generations"] == []
        reindex_with(database_url, encoder)
        found = first
        while not found["generations"] or found["generations"][0]["vectors"] < 8:
            found = json.loads(process.stdout.readline())
        add_code(conn, numbered_texts(40, start=8))
        reindex_with(database_url, encoder)
        before, began = found, datetime.fromisoformat(found["at"])
        while before["generations"][0]["vectors"] < 48:
            before = json.loads(process.stdout.readline())
        rate = before["generations"][0]["vectors_per_second"]
        assert 0 < rate <= 48 / (datetime.fromisoformat(before["at"]) - began).total_seconds()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert (process.wait(20), process.stderr.read()) == (0, "")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_watch_redraws_a_terminal_until_ctrl_c(conn: psycopg.Connection, database_url: str) -> None:
    ours, theirs = pty.openpty()
    process = watching(database_url, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    text = ""
    try:
        add_code(conn, numbered_texts(3))
        end = time.monotonic() + 60
        while "3 chunks (" not in text:
            assert time.monotonic() < end
            text += os.read(ours, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            try:
                text += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the other side is gone
                break
        assert process.wait(20) == 0
        assert "until Ctrl-C" in text
        assert "Traceback" not in text
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_every_goes_with_watch(database_url: str) -> None:
    outcome = pgembed("status", "--every", "3", "--dsn", database_url)
    assert outcome.code == 2
    assert "--every goes with --watch" in outcome.stderr


def test_the_rate_is_that_of_the_last_minute(conn: psycopg.Connection) -> None:
    rates = Rates()
    seen = collect(conn)
    at = seen.at
    told = []
    for second, vectors in ((0, 0), (30, 300), (60, 600), (90, 600), (120, 600), (130, 600), (140, 650)):
        found = replace(seen, at=at + timedelta(seconds=second), generations=[{"id": 7, "vectors": vectors}])
        told.append(rates.after(found).get(7))
    assert told == [None, 10, 10, 5, None, None, pytest.approx(1)]
    assert rates.after(replace(seen, generations=[{"id": 7, "vectors": None}])) == {}
