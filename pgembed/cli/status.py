"""`pgembed status`: what is in the database and what is happening to it. What is shown is collected by `overview`."""

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from pgembed.cli.common import (
    DsnOption,
    JsonOption,
    as_option,
    connection,
    console,
    print_json,
    print_table,
    printable,
    seconds,
)

if TYPE_CHECKING:
    from pgembed.overview import Overview

_WINDOW_S = 60.0  # over which --watch measures how fast a generation is filled
_WAITS = {
    "pairs": "{items} chunks wait to be compared",
    "triplets": "the triplets are older than {stale}",
    "words": "{items} chunks are not found by their words yet",
    "vectors": "{items} chunks have no vector{generation}",
    "activation": "{items} chunks are not searched by vectors: generation {generation_id} is ready, and none is active",
}
_HELD = {
    "range": "generation {generation_id}, chunks {first_chunk:,} to {last_chunk:,}",
    "choosing": "which generation of {encoder} to fill",
    "pairs": "pairs",
    "triplets": "triplets",
    "training": "training run {run_id}",
    "source": "source {source}",
    "chunks": "chunks, to write what was ingested",
}
_BETTER = {True: "yes", False: "not shown", None: "not measured"}
Row = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("status")(status)


def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until Ctrl-C; with --json one document a line.")
    ] = False,
    every: Annotated[
        float | None, typer.Option("--every", metavar="SECONDS", min=0.1, help="With --watch: how often.  [default: 2]")
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show chunks, pairs, triplets, generations, what waits for which command, who is at work, disk and errors.

    A reader's role is enough. How fast a generation is being filled only --watch can tell: it looks more than once.

    \b
    Examples:
        pgembed status
        pgembed status --json
        pgembed status --watch --every 5
    """
    from pgembed.overview import collect

    if every is not None and not watch:
        raise typer.BadParameter("--every goes with --watch.")
    with connection(dsn) as conn:
        if watch:
            _watch(conn, every or 2.0, as_json=as_json)
            return
        found = collect(conn)
    if as_json:
        print_json(_document(found, {}))
    else:
        for part in _shown(found, {}):
            print_table(part)


def _watch(conn: Any, every: float, *, as_json: bool) -> None:
    from pgembed.overview import collect

    rates = Rates()
    try:
        if as_json or not console.is_terminal:
            while True:
                found = collect(conn)
                if as_json:
                    print_json(_document(found, rates.after(found)), on_one_line=True)
                else:
                    console.print(f"{found.at:%Y-%m-%d %H:%M:%S}", style="bold")
                    for part in _shown(found, rates.after(found)):
                        print_table(part)
                    console.print()
                sys.stdout.flush()
                time.sleep(every)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                found = collect(conn)
                head = Text(f"{found.at:%H:%M:%S}, every {every:g} s until Ctrl-C", style="dim")
                live.update(Group(head, *_shown(found, rates.after(found))), refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        return


class Rates:
    """Vectors a second of each generation, by what was counted in the last minute."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[float, int]]] = {}

    def after(self, found: "Overview") -> dict[int, float]:
        """Return the rates of the generations that grew, now that `found` was seen."""
        now = found.at.timestamp()
        rates = {}
        for generation in found.generations:
            if generation["vectors"] is None:
                continue
            seen = self._seen.setdefault(generation["id"], deque())
            seen.append((now, generation["vectors"]))
            while seen[0][0] < now - _WINDOW_S:
                seen.popleft()
            (began, before), (ended, after) = seen[0], seen[-1]
            if after > before and ended > began:
                rates[generation["id"]] = (after - before) / (ended - began)
        return rates


def _document(found: "Overview", rates: dict[int, float]) -> Row:
    document = dict(vars(found))
    document["generations"] = [{**row, "vectors_per_second": rates.get(row["id"])} for row in found.generations]
    return document


def _shown(found: "Overview", rates: dict[int, float]) -> list[RenderableType]:
    parts: list[RenderableType | None] = [
        _counts(found),
        _triplets(found),
        _disk(found),
        _pair_run(found),
        *(_lag(found, row) for row in found.lag),
        _rows("Sources", found.sources),
        _generations(found, rates),
        _rows("Leases", [_lease(row) for row in found.leases if _is_told(row, found)]),
        _rows("Training runs (newest first)", [_training_run(row) for row in found.training_runs]),
        _rows("Input that could not be used", found.rejected),
        _rows("Last errors", [_error(row) for row in found.errors]),
        _rows("Commands at work now", found.sessions),
    ]
    return [part for part in parts if part is not None]


def _counts(found: "Overview") -> Text:
    counts = {name: f"about {n:,}" if name in found.estimated else n for name, n in found.counts.items()}
    counts = {name: f"{n:,}" if isinstance(n, int) else n for name, n in counts.items()}
    return Text(
        "{chunks} chunks ({docstrings} with a docstring) at {locations} places in {files} files of {sources} sources; "
        "{tokens} tokens; {pairs} candidate pairs; {disk} on disk".format(**counts)
    )


def _triplets(found: "Overview") -> Text | None:
    triplets = found.triplets
    if triplets["made_at"] is None:
        return None
    kinds: dict[str, list[str]] = {}
    for row in triplets["counts"]:
        kinds.setdefault(row["kind"], []).append(f"{row['triplets']:,} {row['split']}")
    of_each = "".join(f"; {kind}: {', '.join(splits)}" for kind, splits in kinds.items())
    marks = f"; {triplets['marks']:,} marks of a person leave some out" if triplets["marks"] else ""
    return Text(f"{triplets['total']:,} triplets, made {triplets['made_at']:%Y-%m-%d %H:%M}{of_each}{marks}")


def _disk(found: "Overview") -> Text:
    parts = {name.removesuffix("_bytes"): n for name, n in found.disk.items() if n and name != "total_bytes"}
    return Text("Disk: " + ", ".join(f"{name} {_size(n)}" for name, n in parts.items()))


def _pair_run(found: "Overview") -> Text | None:
    run = found.pairs["run"]
    if run is None or run["state"] == "finished":
        return None
    slices = f"{run['slices_done']} of {run['slices']} slices"
    joined = f"{run['chunks_done']:,} of {run['chunks']:,} chunks compared, in {slices}"
    prepared = f"{found.pairs['unprepared']:,} chunks have no token set yet"
    return Text(
        f"Pairs: run {run['id']} is {run['state']} since {run['started_at']:%Y-%m-%d %H:%M}: "
        f"{joined if run['state'] == 'joining' else prepared}; {_by_whom(run['at_work'], 'pgembed pairs')}"
    )


def _by_whom(at_work: bool, command: str) -> str:
    return "at work" if at_work else f"nobody is at work: `{command}` goes on with it"


def _lag(found: "Overview", row: Row) -> Text:
    sentence = _WAITS[row["waiting_for"]].format(
        items=f"{row['items']:,}",
        generation="" if row["generation_id"] is None else f" in generation {row['generation_id']}",
        generation_id=row["generation_id"],
        stale=", ".join(found.triplets["stale"]),
    )
    if row["waiting_for"] == "pairs" and found.pairs["queued"]:
        sentence += f" ({found.pairs['queued']:,} of them in the queue)"
    what_next = "at work" if row["at_work"] else printable(row["command"])
    return Text(f"Waiting: {sentence}: {what_next}", style="yellow" if not row["at_work"] else "")


def _generations(found: "Overview", rates: dict[int, float]) -> RenderableType:
    if not found.generations:
        return Text("Generations: none yet: run `pgembed reindex`")
    return _rows("Generations", [_generation(row, rates.get(row["id"])) for row in found.generations]) or Text()


def _generation(row: Row, rate: float | None) -> Row:
    from pgembed.overview import UNFINISHED

    state = row["state"]
    vectors = "" if row["vectors"] is None else f"{'about ' if row['vectors_estimated'] else ''}{row['vectors']:,}"
    if row["missing"]:
        vectors += f" of {row['chunks'] - row['rejected']:,} chunks"
    if row["state"] == "filling" and row["vectors"] is not None:
        of = row["vectors"] + (row["missing"] or 0)
        state += f" {row['vectors'] / of:.0%}" if of else ""
    if row["workers"]:
        state += f", {row['workers']} at work"
    elif row["state"] in UNFINISHED:
        state += ", nobody at work"
    if rate:
        vectors += f", {rate:,.0f}/s" + (f", {seconds(row['missing'] / rate)} left" if row["missing"] else "")
    effort = "" if row["probes"] is None else f" {row['probes']}"
    lists = f"/{row['lists']}" if effort and row["index_method"] == "ivfflat" else ""
    since = [
        f"{row[name]:+,} since {what}"
        for name, what in (("rows_since_index", "it was built"), ("rows_since_calibration", "it was calibrated"))
        if row[name]
    ]
    if len(since) == 2 and row["rows_since_index"] == row["rows_since_calibration"]:
        since = since[:1]
    measured = row["measured"]
    return {
        "id": row["id"],
        "encoder": row["encoder"],
        "precision": None if row["precision"] is None else as_option(row["precision"]),
        "state": state,
        "vectors": vectors,
        "rejected": row["rejected"] or None,
        "index": f"{row['index_method']}{effort}{lists}",
        "vectors added": "; ".join(since) or None,
        "recall@10": None if row["index_recall"] is None else f"{row['index_recall']:.3f}",
        "measured last": None if measured is None else f"{measured['recall']:.3f} at {measured['rows']:,.0f} vectors",
        "disk": None
        if row["vectors_bytes"] is None
        else f"{_size(row['vectors_bytes'])} + {_size(row['index_bytes'])} index",
        "created": f"{row['created_at']:%Y-%m-%d %H:%M}",
        "activated": None if row["activated_at"] is None else f"{row['activated_at']:%Y-%m-%d %H:%M}",
        "error": row["error"],
    }


def _is_told(lease: Row, found: "Overview") -> bool:
    """Leave out what goes without saying: a worker that holds a range shares its encoder."""
    return (
        lease["what"] != "encoder"
        or lease["alone"]
        or not any(other["what"] == "range" and other["pid"] == lease["pid"] for other in found.leases)
    )


def _lease(row: Row) -> Row:
    if row["what"] == "encoder":
        what = f"generations of {row['encoder']}, " + ("alone: indexing" if row["alone"] else "with others: filling")
    else:
        what = _HELD[row["what"]].format(**row)
    return {
        "what": what + (" (waits for it)" if row["waiting"] else ""),
        "held by": row["application_name"],
        "pid": row["pid"],
        "role": row["role"],
        "host": row["host"],
        "connected": row["connected_at"],
    }


def _training_run(row: Row) -> Row:
    step = f"{row['last_step'] or 0:,}"
    if row["steps"]:
        step += f" of {row['steps']:,}"
    if row["steps_per_second"]:
        step += f", {row['steps_per_second']:.2g}/s"
    if row["seconds_left"]:
        step += f", {seconds(row['seconds_left'])} left"
    state = row["state"]
    if state == "running" and not row["at_work"]:
        state = "running, nobody at work"
    return {
        "id": row["id"],
        "state": state,
        "view": row["view"],
        "base": row["base"],
        "encoder": row["encoder"],
        "step": step,
        "loss": "not finite" if row["last_step"] and row["last_loss"] is None else row["last_loss"],
        "better": "WORSE" if row["worse"] else _BETTER[row["better"]] if state == "finished" else None,
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "error": row["error"],
    }


def _error(row: Row) -> Row:
    what = f"{row['what']} at {row['stage']}" if row["stage"] else f"{row['what']} {row['id']}"
    return {"at": row["at"], "what": what, "where": row["place"], "error": row["error"]}


def _rows(title: str, rows: list[Row]) -> Table | None:
    if not rows:
        return None
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    table = Table(
        *(Column(name, overflow="fold") for name in columns),
        title=title,
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for row in rows:
        table.add_row(*(Text("" if row[name] is None else printable(_short(row[name]))) for name in columns))
    return table


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M:%S"))
    return str(value)


def _size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"
