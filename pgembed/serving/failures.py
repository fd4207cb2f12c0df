"""What the server refuses and what went wrong, as JSON: the message and remedy that the command line shows."""

import json
import math
from datetime import datetime, timedelta
from typing import Any

import psycopg
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from pgembed.db.remedies import explain
from pgembed.errors import DatabaseError, GenerationError, PgembedError, SearchError


class Busy(PgembedError):
    """More was asked at once than is worked on."""


class NotReady(SearchError):
    """What is needed to answer is not there yet, or not on this machine."""


class NotFound(PgembedError):
    """There is no such row."""


class Refused(PgembedError):
    """The request is not allowed."""


# The first that fits.
_STATUS: tuple[tuple[type[PgembedError], int], ...] = (
    (Busy, 503),
    (DatabaseError, 503),
    (NotReady, 409),
    (NotFound, 404),
    (Refused, 403),
    (SearchError, 400),
    (GenerationError, 409),
)


class Json(JSONResponse):
    """JSON of rows: times in ISO 8601, durations in seconds, what is not finite (a loss of NaN) as null."""

    def render(self, content: Any) -> bytes:
        """Return the document's bytes."""
        try:
            return _dump(content)
        except ValueError:
            return _dump(_finite(content))


def _dump(content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair, in what a request is told about itself


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def failure(status: int, kind: str, message: str, remedy: str | None = None) -> Json:
    """Return the answer that says what is wrong and what to do."""
    headers = {"Retry-After": "1"} if status == 503 else None
    return Json({"error": kind, "message": message, "remedy": remedy}, status_code=status, headers=headers)


def on_error(_request: Request, error: Exception) -> Json:
    """Answer with what pgembed or the database refused."""
    if isinstance(error, psycopg.errors.NoDataFound):
        error = NotFound(f"{error.diag.message_primary}.")
    elif isinstance(error, psycopg.errors.InsufficientPrivilege):
        return failure(403, "DatabaseError", str(error).strip(), "Let serve use a role that may: pgembed db roles.")
    elif isinstance(error, psycopg.DataError) and error.sqlstate is None:  # refused before it was sent: a NUL byte
        return failure(400, "InvalidRequest", f"A parameter cannot be stored as text: {error}.", "Leave NUL bytes out.")
    elif isinstance(error, psycopg.Error):
        error = explain(error) or error
    if isinstance(error, PgembedError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return failure(status, type(error).__name__, error.message, error.remedy)
    return failure(500, "InternalError", "Something went wrong in the server.", "Its standard error says what.")


def on_invalid(_request: Request, error: Exception) -> Json:
    """Answer a request whose parameters cannot be used."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for that
    found = jsonable_encoder(error.errors(), custom_encoder={bytes: repr, Exception: str})
    said = "; ".join(f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in found)
    return failure(422, "InvalidRequest", said, "See /docs for what each parameter takes.")


def on_http(_request: Request, error: Exception) -> Json:
    """Answer what the framework refuses: no such page, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for that
    return failure(error.status_code, "HttpError", str(error.detail), "See /docs for what there is.")
