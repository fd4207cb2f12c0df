"""Who may ask: the Host that a request names, its token, and where a request that changes something comes from.

- On loopback anyone on the machine may ask, and so may any page in their browser that resolves its own name to
  127.0.0.1 (DNS rebinding): so the Host must be one of ours.
- Elsewhere a token is needed, as a Bearer header or, for a browser, as a cookie that the login form sets. The cookie
  holds a hash of the token that is good for nothing else.
- What changes something must come from a page of ours (Origin, Sec-Fetch-Site) and carry a header that a form of
  another site cannot send (CSRF).
"""

import hashlib
import hmac
import ipaddress
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pgembed.errors import ConfigurationError
from pgembed.serving.failures import failure

COOKIE = "pgembed"
HEADER = "X-Pgembed"
"""A page of another site cannot send it without asking first (CORS), and is refused then."""
LEAST_TOKEN = 16
"""Characters: what cannot be guessed over the network, however often it is tried."""
_MOST_BODY = 64 * 1024
_SAFE = {"GET", "HEAD"}
# What tells nothing, and what the login form is made of.
_OPEN = {"/healthz", "/login", "/static/style.css"}

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    # not no-referrer: a browser would then say "Origin: null" of our own login form
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: an address, or a name all of whose addresses are loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {item[4][0] for item in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise ConfigurationError(f"There is no host {host!r} to listen on: {error}.") from error
    return all(ipaddress.ip_address(str(address).split("%")[0]).is_loopback for address in found)


@dataclass(frozen=True)
class Access:
    """What a request must show."""

    token: str | None = None
    hosts: frozenset[str] | None = field(default=frozenset({"localhost", "127.0.0.1", "::1"}))
    """Names that a request may call us by; None: any (the token guards)."""

    @classmethod
    def of(cls, host: str, token: str | None, also: tuple[str, ...] = ()) -> "Access":
        """Return what fits the address that is listened on.

        Raises:
            ConfigurationError: others than this machine could ask, and there is no token; or it is too short.
        """
        if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
            raise ConfigurationError(
                f"The token must have {LEAST_TOKEN} characters or more, all of them printable ASCII.",
                remedy="Make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'",
            )
        if is_loopback(host):
            return cls(token, frozenset({"localhost", "127.0.0.1", "::1", host.lower(), *map(str.lower, also)}))
        if token is None:
            raise ConfigurationError(
                f"On {host} other machines could read all of the code, and there is no token.",
                remedy="Give one by --token-file or PGEMBED_TOKEN "
                "(python3 -c 'import secrets; print(secrets.token_urlsafe())' makes one), or listen on 127.0.0.1.",
            )
        return cls(token, None)

    def names_us(self, host: str) -> bool:
        """Whether a Host header is one of ours."""
        if self.hosts is None:
            return True
        try:
            return (urlsplit(f"//{host}").hostname or "") in self.hosts
        except ValueError:
            return False

    def admits(self, headers: Headers) -> bool:
        """Whether a request shows the token, where there is one."""
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self.cookie())

    def is_token(self, given: str) -> bool:
        """Whether it is the token; takes the same time whatever is given."""
        return self.token is not None and _same(given, self.token)

    def cookie(self) -> str:
        """Return what the cookie holds."""
        return hmac.new((self.token or "").encode(), b"pgembed cookie 1", hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    # of one length, so that not even that is told
    return hmac.compare_digest(*(hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (one, other)))


def comes_from_here(headers: Headers) -> bool:
    """Whether a browser that says where a request comes from names our own page."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


class Guard:
    """The middleware: refuses what `Access` does not admit, and sets the headers that keep the page harmless."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                assert isinstance(headers, list)  # noqa: S101 - so the protocol has it
                headers.extend((name.encode(), value.encode()) for name, value in _HEADERS.items())
                if not any(name == b"cache-control" for name, _ in headers):
                    kept = b"no-cache" if scope["path"].startswith("/static/") else b"no-store"
                    headers.append((b"cache-control", kept))
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, with_headers)  # type: ignore[arg-type]
        elif scope["path"] == "/login" and scope["method"] == "POST":
            answer = await self._log_in(Request(scope, receive))
            await answer(scope, receive, with_headers)  # type: ignore[arg-type]
        else:
            await self._app(scope, receive, with_headers)  # type: ignore[arg-type]

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        path, method = scope["path"], scope["method"]
        if not self._access.names_us(headers.get("host", "")):
            return failure(
                421, "Refused", f"This server is not called {headers.get('host', '')!r}.",
                "Ask 127.0.0.1 or localhost, or name the host by --allow-host.",
            )  # fmt: skip
        if path not in _OPEN and not self._access.admits(headers):
            if method == "GET" and "text/html" in headers.get("accept", ""):
                return RedirectResponse("/login", status_code=303)
            refused = failure(401, "Refused", "The token is missing or wrong.", "Send it: Authorization: Bearer TOKEN.")
            refused.headers["www-authenticate"] = "Bearer"
            return refused
        if method in _SAFE:
            return None
        if not comes_from_here(headers) or (path != "/login" and HEADER.lower() not in headers):
            return failure(
                403, "Refused", "What changes something must come from this server's own page.",
                f"A script sends the header {HEADER}: 1.",
            )  # fmt: skip
        if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > _MOST_BODY:
            return failure(413, "Refused", f"The request is longer than {_MOST_BODY // 1024} KB.")
        if "transfer-encoding" in headers:
            return failure(411, "Refused", "The request does not say how long it is.")
        return None

    async def _log_in(self, request: Request) -> Response:
        """Set the cookie for the right token."""
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        if not self._access.is_token(form.get("token", [""])[0].strip()):
            return RedirectResponse("/login#wrong", status_code=303)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            COOKIE, self._access.cookie(), httponly=True, samesite="strict", secure=request.url.scheme == "https",
            max_age=30 * 24 * 3600,
        )  # fmt: skip
        return answer
