"""The outermost layer of the service: what it refuses never reaches BentoML, and every error has one shape.

It is an ASGI guard that knows the service's paths. It answers 401, 404, 405, 408, 413 and 415, and 429 where a key
has made too many requests; it hands a body on when it has arrived whole and within its limit, and puts errors of the
layers below it into the envelope ``{"error": {"code", "message", "details"}}``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message as HeaderParser

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.keys import KeyRing
from serving.schemas import Error, ErrorCode, ErrorDetail, ErrorEnvelope

# How much of a body that is too large is still read, so that its sender gets to read the answer.
_LINGER_BYTES = 32 * 2**20
_LINGER_S = 2.0

# What everybody may see: that the service lives, and how to call it.
PUBLIC_PATHS = frozenset({"/", "/openapi.json", "/livez", "/healthz", "/readyz"})
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="sayso"'}
_NO_KEYS = (
    "this service takes requests from its own machine only; its operator can give out API keys (SAYSO_API_KEYS,"
    " `sayso new-key`) or open it to all (SAYSO_INSECURE=1)"
)

_ENVELOPE = b'{"error":{"code":'


class ApiError(Exception):
    """An answer that is not a success; its message is the code's meaning unless one is given."""

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        details: Sequence[ErrorDetail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = message or code.meaning
        super().__init__(message)
        self.envelope = ErrorEnvelope(error=Error(code=code, message=message, details=list(details)))
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the error as a response."""
        status = self.envelope.error.code.status
        return Response(self.envelope.model_dump_json(), status, self.headers, media_type="application/json")


@dataclass(frozen=True)
class BodyLimits:
    """How large a request's body may be, and how long it may take to arrive."""

    max_bytes: int
    timeout_s: float


class Guard:
    """Wraps an ASGI application. ``paths`` are the only ones there are, each with its methods.

    With ``keys`` a request must bring one of them. Without any, requests that reach this machine from another are
    refused unless ``insecure``: whatever started the server, nobody opens it to the world unawares.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        paths: Mapping[str, frozenset[str]],
        limits: BodyLimits,
        keys: KeyRing | None = None,
        insecure: bool = False,
    ) -> None:
        self.app = app
        self.paths = paths
        self.limits = limits
        self.keys = keys
        self.insecure = insecure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass, and answer the rest."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_route(scope)
            self._check_caller(scope)
            if scope["method"] == "POST":
                _check_headers(scope)
                receive = _replay(await self._read_body(scope, receive), receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except _ClientGoneError:
            return
        else:
            await self.app(scope, receive, _Enveloping(scope, receive, send))

    def _check_route(self, scope: Scope) -> None:
        methods = self.paths.get(scope["path"])
        if methods is None:
            raise ApiError(ErrorCode.NOT_FOUND)
        if scope["method"] not in methods:
            allow = ", ".join(sorted(methods))
            message = f"{ErrorCode.METHOD_NOT_ALLOWED.meaning}; it takes {allow}"
            raise ApiError(ErrorCode.METHOD_NOT_ALLOWED, message, headers={"Allow": allow})

    def _check_caller(self, scope: Scope) -> None:
        if scope["path"] in PUBLIC_PATHS:
            return
        if self.keys is None:
            if not self.insecure and _from_elsewhere(scope):
                raise ApiError(ErrorCode.UNAUTHORIZED, _NO_KEYS, headers=_CHALLENGE)
            return
        scheme, _, token = (_header(scope, b"authorization") or b"").partition(b" ")
        key = self.keys.owner(token.strip()) if scheme.lower() == b"bearer" else None
        if key is None:
            raise ApiError(ErrorCode.UNAUTHORIZED, headers=_CHALLENGE)
        scope.setdefault("state", {})["key"] = key.name
        if wait_s := self.keys.wait_s(key):
            message = f"this key may make {key.per_minute:,} requests a minute"
            raise ApiError(ErrorCode.RATE_LIMITED, message, headers={"Retry-After": str(math.ceil(wait_s))})

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body; raise ApiError where it is too large or too slow."""
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                self._check_size(_declared_size(scope))
                async for chunk in _chunks(receive):
                    size += len(chunk)
                    self._check_size(size)
                    chunks.append(chunk)
        except TimeoutError:
            message = f"the body did not arrive within {self.limits.timeout_s:g} s"
            raise ApiError(ErrorCode.BODY_TIMEOUT, message, headers={"Connection": "close"}) from None
        except ApiError:
            if _header(scope, b"expect") is None:
                await _linger(receive)
            raise
        return b"".join(chunks)

    def _check_size(self, size: int) -> None:
        if size > self.limits.max_bytes:
            message = f"the body is larger than {self.limits.max_bytes:,} bytes; send it in parts"
            raise ApiError(ErrorCode.BODY_TOO_LARGE, message, headers={"Connection": "close"})


class _ClientGoneError(Exception):
    """The client left before its request had arrived."""


class _Enveloping:
    """A ``send`` that puts error bodies of the layers below into the envelope where they are not in it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.held: Message | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self.held = message
        elif self.held is None:
            await self.send(message)
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_held(self.held)

    async def _send_held(self, start: Message) -> None:
        if self.body.startswith(_ENVELOPE):
            await self.send(start)
            await self.send({"type": "http.response.body", "body": self.body})
        else:
            await ApiError(_code_of(start["status"])).response()(self.scope, self.receive, self.send)


def _code_of(status: int) -> ErrorCode:
    return next((code for code in ErrorCode if code.status == status), ErrorCode.INTERNAL_ERROR)


def _check_headers(scope: Scope) -> None:
    """Raise ApiError unless the body is said to be plain JSON in UTF-8."""
    # Browsers send forms and text across origins without asking; JSON they do not, so this is a wall too.
    content_type = _header(scope, b"content-type") or b""
    encoding = _header(scope, b"content-encoding") or b"identity"
    if not _is_json(content_type) or encoding.strip().lower() != b"identity":
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE)


def _is_json(content_type: bytes) -> bool:
    if content_type == b"application/json":
        return True
    header = HeaderParser()
    header["content-type"] = content_type.decode("latin-1")
    charset = header.get_content_charset("utf-8")
    return header.get_content_type() == "application/json" and charset in ("utf-8", "utf8")


def _from_elsewhere(scope: Scope) -> bool:
    """Return whether a request came in at an address that other machines can reach."""
    host = (scope.get("server") or ("",))[0]
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:  # a local socket, or a test's name
        return False


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _declared_size(scope: Scope) -> int:
    declared = _header(scope, b"content-length") or b"0"
    return int(declared) if declared.isdigit() else 0


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _linger(receive: Receive) -> None:
    """Read on for a while: a connection that is closed on a sender loses the answer with it."""
    size = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            async for chunk in _chunks(receive):
                size += len(chunk)
                if size > _LINGER_BYTES:
                    return
    except TimeoutError:
        return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that hands out a body that was read before, and then what comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
