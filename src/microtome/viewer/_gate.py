"""Who is let in: this machine, with the token, to read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Gate", "new_token"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_URL = 8192
"""Most bytes of a path and its query."""
_TOKEN_BYTES = 24
_NAMES = ("127.0.0.1", "localhost")
# What every answer carries. `blob:` is how a page shows pictures that it fetched itself.
_HEADERS = [
    (
        b"content-security-policy",
        (
            b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
            b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_KINDS = {
    400: "this request is not understood",
    403: "this request comes from another site",
    404: "not found",
    405: "only GET and HEAD are answered",
    413: "a request has no body here",
    414: f"an address is at most {MOST_URL} bytes long",
}


def new_token() -> str:
    """Return a secret that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


class Gate:
    """Turns away what is not from this machine's own page; an ASGI application around another.

    Whoever does not name the token, or asks for this server by another name than this machine's
    own (DNS rebinding), is told nothing but 404.

    Parameters
    ----------
    app
        What is behind it; sees paths without the token.
    token
        First part of every path.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket: there is none here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in _HEADERS}
                own = [h for h in message.get("headers", []) if h[0].lower() not in known]
                message["headers"] = [*own, *_HEADERS]
            await send(message)

        status, inner = self._judged(scope)
        if inner is None:
            await _refuse(scope, sealed, status)
            return
        await self._app({**scope, "path": inner, "raw_path": inner.encode()}, receive, sealed)

    def _judged(self, scope: Scope) -> tuple[int, str | None]:
        """Return the status of a refusal, or the path behind the token."""
        path: str = scope["path"]
        if len(scope.get("raw_path") or path) + len(scope.get("query_string", b"")) > MOST_URL:
            return 414, None
        _, _, rest = path.partition("/")
        given, slash, inner = rest.partition("/")
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        known = secrets.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)
        if not known or not slash or not self._is_own_name(scope, headers.get(b"host", [])):
            return 404, None
        if scope["method"] not in {"GET", "HEAD"}:
            return 405, None
        if not self._is_own_page(headers):
            return 403, None
        if headers.get(b"content-length", [b"0"]) != [b"0"] or b"transfer-encoding" in headers:
            return 413, None
        return 200, f"/{inner}"

    def _is_own_name(self, scope: Scope, hosts: list[bytes]) -> bool:
        server = scope.get("server")
        if len(hosts) != 1 or server is None:
            return False
        port = server[1]
        allowed = {f"{name}:{port}" for name in _NAMES}
        if port == 80:
            allowed |= set(_NAMES)
        return hosts[0].decode("latin-1").lower() in allowed

    def _is_own_page(self, headers: dict[bytes, list[bytes]]) -> bool:
        # The host was found to be this machine's own.
        own = b"http://" + headers[b"host"][0].lower()
        if any(origin.lower() != own for origin in headers.get(b"origin", [])):
            return False
        site = headers.get(b"sec-fetch-site", [b"none"])[0]
        mode = headers.get(b"sec-fetch-mode", [b""])[0]
        # A link in a chat leads here from elsewhere, and holds the token; a picture or script that
        # another page draws in does not come from a person.
        return site in {b"same-origin", b"none"} or mode == b"navigate"


async def _refuse(scope: Scope, send: Send, status: int) -> None:
    body = json.dumps({"error": _KINDS[status]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    shown = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": shown})
