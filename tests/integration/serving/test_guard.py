"""What the application refuses: other names, missing tokens, changes that come from elsewhere."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from fixtures_serving import Served

from pgembed.serving.app import make_app
from pgembed.serving.guard import Access

TOKEN = "a-token-of-some-length"  # noqa: S105 - of these tests
WRITE = {"X-Pgembed": "1"}


@pytest.fixture
def locked(served: Served) -> Iterator[TestClient]:
    """An application with a token."""
    app = make_app(served.url, access=Access.of("127.0.0.1", TOKEN))
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def test_another_name_for_us_is_refused(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:8421"):
        answer = client.get("/api/status", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]) == (421, "Refused")
    assert client.get("/api/status", headers={"host": "localhost:1234"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a form of another site can send no header of its own
        {**WRITE, "origin": "http://evil.example"},
        {**WRITE, "sec-fetch-site": "cross-site"},
    ],
)
def test_a_change_from_elsewhere_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    for answer in (
        client.post("/api/triplets/1/block", json={"reason": "x"}, headers=headers),
        client.delete("/api/triplets/1/block", headers=headers),
    ):
        assert (answer.status_code, answer.json()["error"]) == (403, "Refused")
    assert client.get("/api/triplets", params={"marked": True}).json()["triplets"] == []


def test_a_long_body_is_refused(client: TestClient) -> None:
    answer = client.post("/api/triplets/1/block", json={"reason": "x" * 70_000}, headers=WRITE)
    assert answer.status_code == 413


def test_without_the_token_nothing_is_told(locked: TestClient) -> None:
    closed = ("/api/status", "/api/search?q=x", "/metrics", "/openapi.json", "/docs", "/", "/static/main.js", "/readyz")
    for path in closed:
        answer = locked.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.get("/healthz").json() == {"status": "ok"}
    assert locked.get("/api/status", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert locked.get("/api/status", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_browser_is_sent_to_the_form_and_has_a_cookie_for_the_token(locked: TestClient) -> None:
    sent = locked.get("/", headers={"accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    assert "form" in locked.get("/login").text
    wrong = locked.post("/login", data={"token": "wrong"})
    assert wrong.headers["location"] == "/login#wrong"
    assert "set-cookie" not in wrong.headers
    right = locked.post("/login", data={"token": TOKEN})
    assert right.headers["location"] == "/"
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert locked.get("/api/status").status_code == 200  # the client sends the cookie
    # the cookie alone changes nothing: another site could make a browser send it
    assert locked.post("/api/triplets/1/block", json={"reason": "x"}).status_code == 403


def test_a_login_from_elsewhere_is_refused(locked: TestClient) -> None:
    answer = locked.post("/login", data={"token": TOKEN}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


def test_every_answer_says_what_a_page_may_do(client: TestClient, locked: TestClient) -> None:
    for answer in (client.get("/"), client.get("/static/main.js"), client.get("/api/nothing"), locked.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_a_surprise_is_json_without_its_secrets(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr("pgembed.serving.searching.search", fail)
    with TestClient(make_app(served.url), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.get("/api/search", params={"q": "x"})
        assert (answer.status_code, answer.json()["error"]) == (500, "InternalError")
        assert "secret" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert 'route="/api/search",status="500"} 1.0' in client.get("/metrics").text
