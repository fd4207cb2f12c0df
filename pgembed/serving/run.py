"""Listening, running, and an end that loses nothing that was accepted."""

import signal
import socket
import threading
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from pgembed.errors import ConfigurationError

_GRACE_S = 30
"""For the requests at work when the server is told to stop."""
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigurationError: the port is taken, or the address is not one of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            remedy="Choose another one by --port (0: any that is free) or --host.",
        ) from error
    # asyncio turns Nagle's algorithm off only where the protocol is named, and create_server does not name it: with it
    # on, the body of an answer waits 40 ms for the client's delayed ACK of its headers
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listening.detach())


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; requests that were accepted by then are answered first."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again when it is done: the end that was asked for is no failure
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
    server.run(sockets=[listening])


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
