"""Binary COPY of vectors: a batch of rows is one NumPy structured array, which is the wire format itself.

pgvector's and psycopg's own loaders build each row in Python. Here a block of rows is encoded by three array
assignments, and what the server would refuse halfway through a stream (NaN, Inf) or never find again (zero) is
refused before anything is sent.

Format: PostgreSQL documentation, COPY, "Binary Format"; pgvector, `vector_send` (int16 dimensions, int16 unused,
then float4 each), everything big-endian.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from pgembed.errors import DatabaseError

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)  # signature, flags, length of the header's extension
TRAILER = struct.pack("!h", -1)
BLOCK_ROWS = 32  # 330 kB at 2,560 dimensions; at 1.3 MB a write, clients took up to three times the processor time
LARGEST = 65504.0  # the largest half-precision number: beyond it the index on halfvec refuses the row
SMALLEST = 2.0**-24  # the smallest one: a vector below it everywhere is zero in the index, and never found

Keys = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]


class BadVectorError(DatabaseError):
    """Vectors that must not be stored; `reasons` maps the key of each to a short fixed word."""

    def __init__(self, reasons: dict[int, str]) -> None:
        self.reasons = reasons
        shown = ", ".join(f"{key} ({reason})" for key, reason in list(reasons.items())[:10])
        more = f" and {len(reasons) - 10} more" if len(reasons) > 10 else ""
        super().__init__(f"{len(reasons)} vectors cannot be stored: {shown}{more}. Nothing of this batch was written.")


def bad_rows(embeddings: Embeddings) -> dict[int, str]:
    """Return why rows of `embeddings` (N, D) cannot be stored: row number → not_finite, out_of_range or zero_vector."""
    if len(embeddings) == 0:
        return {}
    peak = np.maximum(embeddings.max(axis=1), -embeddings.min(axis=1))  # NaN and Inf come through
    suspects = np.flatnonzero(~((peak >= SMALLEST) & (peak <= LARGEST)))
    return {int(row): _reason(float(peak[row])) for row in suspects}


def copy_rows(
    connection: psycopg.Connection[Any],
    table: sql.Composable,
    columns: Sequence[str],
    keys: Keys,
    embeddings: Embeddings,
) -> int:
    """Append rows to `table` by binary COPY and return their number.

    `columns` names the bigint key columns and, last, the vector column; `keys` is (N, K) int64, or (N,) for one key;
    `embeddings` is (N, D) float32, of any D that the column takes. Runs in the caller's transaction.

    Raises:
        BadVectorError: a vector is not finite, zero, or beyond half precision; named by the last key; nothing was sent.
        DatabaseError: the server counted another number of rows than were sent.
    """
    if keys.ndim == 1:
        keys = keys[:, np.newaxis]
    if bad := bad_rows(embeddings):
        raise BadVectorError({int(keys[row, -1]): reason for row, reason in bad.items()})
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            write_rows(copy, keys, embeddings)
        # the server takes a stream that ends early as complete, so only the count tells
        if cursor.rowcount != len(keys):
            raise DatabaseError(f"{len(keys)} rows were sent and the server stored {cursor.rowcount}.")
    return len(keys)


def write_rows(copy: psycopg.Copy, keys: Keys, embeddings: Embeddings) -> None:
    """Write a complete stream (header, rows, trailer) of `keys` (N, K) and `embeddings` (N, D); nothing is checked."""
    copy.write(HEADER)
    for block in encode(keys, embeddings):
        copy.write(block)
    copy.write(TRAILER)


def write_embeddings(copy: psycopg.Copy, generation_id: int, chunk_ids: Keys, embeddings: Embeddings) -> None:
    """Write a complete stream for (generation_id, chunk_id, embedding); nothing is checked."""
    write_rows(copy, generation_keys(generation_id, chunk_ids), embeddings)


def generation_keys(generation_id: int, chunk_ids: Keys) -> Keys:
    """Return (N, 2) keys: the generation beside each chunk."""
    return np.column_stack((np.full(len(chunk_ids), generation_id, dtype=np.int64), chunk_ids))


def encode(keys: Keys, embeddings: Embeddings) -> Iterator[memoryview]:
    """Yield the rows on the wire, BLOCK_ROWS at a time. The memory is used again: take each block before the next."""
    count, width = keys.shape
    dtype = row_dtype(width, embeddings.shape[1])
    block = np.empty(min(count, BLOCK_ROWS), dtype)
    _fill_constants(block, width, embeddings.shape[1])
    for start in range(0, count, BLOCK_ROWS):
        rows = block[: min(BLOCK_ROWS, count - start)]
        for column in range(width):
            rows[f"key{column}"] = keys[start : start + len(rows), column]
        rows["embedding"] = embeddings[start : start + len(rows)]
        yield rows.view(np.uint8).data


def decode(
    stream: Iterable[bytes | bytearray | memoryview], width: int, dimensions: int, rows: int = 1024
) -> Iterator[Any]:
    """Yield (keys (n, width) int64, embeddings (n, dimensions) float32) from a binary COPY … TO STDOUT, n ≤ `rows`.

    Raises:
        DatabaseError: the stream is not of this shape (a null, another dimension), or ends early.
    """
    dtype = row_dtype(width, dimensions)
    pending = bytearray()
    started = False
    for message in stream:
        pending += message
        if not started and len(pending) >= len(HEADER):
            del pending[: len(HEADER)]
            started = True
        if len(pending) >= rows * dtype.itemsize:
            yield _split(bytes(pending[: rows * dtype.itemsize]), dtype, width, dimensions)
            del pending[: rows * dtype.itemsize]
    if bytes(pending[-len(TRAILER) :]) != TRAILER:
        raise DatabaseError("The stream of vectors ended early.")
    whole = bytes(pending[: -len(TRAILER)])
    for start in range(0, len(whole), rows * dtype.itemsize):
        yield _split(whole[start : start + rows * dtype.itemsize], dtype, width, dimensions)


@cache
def row_dtype(width: int, dimensions: int) -> np.dtype[Any]:
    """Return one row on the wire: `width` bigint columns and a vector, each behind its length, without padding."""
    fields: list[Any] = [("fields", ">i2")]
    for column in range(width):
        fields += [(f"key{column}_size", ">i4"), (f"key{column}", ">i8")]
    fields += [
        ("embedding_size", ">i4"),
        ("dimensions", ">i2"),
        ("unused", ">i2"),
        ("embedding", ">f4", (dimensions,)),
    ]
    return np.dtype(fields)


def _fill_constants(rows: npt.NDArray[Any], width: int, dimensions: int) -> None:
    rows["fields"] = width + 1
    for column in range(width):
        rows[f"key{column}_size"] = 8
    rows["embedding_size"] = 4 + 4 * dimensions
    rows["dimensions"] = dimensions
    rows["unused"] = 0


def _split(data: bytes, dtype: np.dtype[Any], width: int, dimensions: int) -> tuple[Keys, Embeddings]:
    rows = np.frombuffer(data, dtype) if len(data) % dtype.itemsize == 0 else None
    if rows is None or (rows["fields"] != width + 1).any() or (rows["dimensions"] != dimensions).any():
        raise DatabaseError(f"The stream does not hold {width} bigint columns and a vector({dimensions}) in each row.")
    keys = np.column_stack([rows[f"key{column}"].astype(np.int64) for column in range(width)])
    return keys, rows["embedding"].astype(np.float32)


def _reason(peak: float) -> str:
    if not np.isfinite(peak):
        return "not_finite"
    return "out_of_range" if peak > LARGEST else "zero_vector"
