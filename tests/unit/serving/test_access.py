"""Who is admitted: hosts, tokens, cookies, and where a request comes from."""

import pytest
from starlette.datastructures import Headers

from pgembed.errors import ConfigurationError
from pgembed.serving.guard import Access, comes_from_here, is_loopback

TOKEN = "a-token-of-some-length"  # noqa: S105 - of these tests


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    access = Access.of(host, None)
    assert access.admits(Headers({}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])  # noqa: S104 - that is the point
def test_elsewhere_a_token_is_needed(host: str) -> None:
    with pytest.raises(ConfigurationError, match="no token") as refused:
        Access.of(host, None)
    assert "PGEMBED_TOKEN" in str(refused.value.remedy)
    assert not Access.of(host, TOKEN).admits(Headers({}))


@pytest.mark.parametrize("token", ["short", "", "token with ünicode in it", "token\nwith a line feed"])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="16 characters"):
        Access.of("127.0.0.1", token)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True), ("localhost:8421", True), ("[::1]:8421", True), ("LOCALHOST", True), ("code.lan", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("localhost@evil.example", False), ("", False),
        ("evil.example#localhost", False), ("[::1", False),
    ],
)  # fmt: skip
def test_the_host_must_be_one_of_ours(host: str, ours: bool) -> None:
    assert Access.of("127.0.0.1", None, ("code.lan",)).names_us(host) is ours


def test_the_token_is_a_header_or_a_cookie() -> None:
    access = Access.of("127.0.0.1", TOKEN)
    assert access.admits(Headers({"authorization": f"Bearer {TOKEN}"}))
    assert access.admits(Headers({"cookie": f"other=1; pgembed={access.cookie()}"}))
    for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer \xff"):
        assert not access.admits(Headers({"authorization": wrong}))
    for wrong in (TOKEN, "", access.cookie()[:-1], Access(TOKEN + "x").cookie()):
        assert not access.admits(Headers({"cookie": f"pgembed={wrong}"}))
    assert TOKEN not in access.cookie()


@pytest.mark.parametrize(
    ("headers", "here"),
    [
        ({}, True),  # a script
        ({"origin": "http://127.0.0.1:8421"}, True), ({"origin": "http://127.0.0.1:9000"}, False),
        ({"origin": "http://evil.example"}, False), ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False), ({"sec-fetch-site": "same-site"}, False),
    ],
)  # fmt: skip
def test_a_change_comes_from_our_own_page(headers: dict[str, str], here: bool) -> None:
    assert comes_from_here(Headers({"host": "127.0.0.1:8421", **headers})) is here
