"""The socket that the server listens on."""

import asyncio
import socket

import pytest

from pgembed.errors import ConfigurationError
from pgembed.serving.run import listen


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_headers() -> None:
    """What asyncio accepts there sends at once (TCP_NODELAY), as for a socket of asyncio's own."""
    delays: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        delays.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def ask() -> None:
        with listen("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(accept, sock=listening):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                await reader.read()
                writer.close()

    asyncio.run(ask())
    assert delays == [1]


def test_a_port_that_is_taken_is_refused_by_its_number() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"Cannot listen on 127\.0\.0\.1:{port}: ") as refused:
            listen("127.0.0.1", port)
        assert "--port" in (refused.value.remedy or "")
