"""The record of every request: its id, its line in the log, its count in the metrics; and what every answer carries.

Outside of everything else, so that nothing is answered without it. A line of the log never holds text of an article,
nor a path that is not the service's own.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Observer

REQUEST_ID = b"x-request-id"
UNKNOWN_ROUTE = "(unknown)"

_log = logging.getLogger("sayso.access")

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Answers are data and never a page's parts; whoever serves a page sets its own policy.
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_PROBES = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})


class Access:
    """Wraps an ASGI application; ``routes`` are the paths that logs and metrics may name."""

    def __init__(self, app: ASGIApp, *, routes: Collection[str], observer: Observer) -> None:
        self.app = app
        self.routes = frozenset(routes)
        self.observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and record how it was answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = request_id = _request_id(scope)
        status = 499  # what is recorded where the client left before there was an answer

        async def recording(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _headers(message, request_id)}
            await send(message)

        try:
            await self.app(scope, receive, recording)
        except Exception:
            status = 500
            raise
        finally:
            self._record(scope, status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self.routes else UNKNOWN_ROUTE
        self.observer.answered(route=route, status=status, seconds=seconds)
        level = logging.DEBUG if route in _PROBES and status == 200 else logging.INFO
        if not _log.isEnabledFor(level):
            return
        state = scope["state"]
        fields: dict[str, Any] = {
            "request_id": state["request_id"],
            "method": scope["method"] if scope["method"].isalpha() else "?",
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "key": state.get("key"),
        }
        _log.log(level, "request", extra={"fields": {k: v for k, v in fields.items() if v is not None}})


def _request_id(scope: Scope) -> str:
    """Return the id that the request came with, if it is well formed, else a new one."""
    given = [value for name, value in scope["headers"] if name == REQUEST_ID]
    if len(given) == 1 and _WELL_FORMED.fullmatch(given[0]):
        return str(given[0].decode("ascii"))
    return uuid.uuid4().hex


def _headers(message: Message, request_id: str) -> list[tuple[bytes, bytes]]:
    present = dict(message.get("headers", ()))
    ours = {name: value for name, value in _HEADERS.items() if name not in present}
    return [*message.get("headers", ()), *ours.items(), (REQUEST_ID, request_id.encode("ascii"))]
