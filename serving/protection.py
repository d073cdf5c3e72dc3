"""What stands between the world and the application, from the outside in: CORS, the record, the guard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.access import Access
from serving.guard import BodyLimits, Guard
from serving.keys import KeyRing, read_keys
from serving.metrics import Observer
from serving.settings import Settings

_SHOWN_TO_PAGES = ("Retry-After", "X-Request-ID")


def protected(
    app: ASGIApp, settings: Settings, *, paths: Mapping[str, frozenset[str]], observer: Observer
) -> ASGIApp:
    """Return the application with its guards; ``paths`` are all that it answers, each with its methods."""
    app = Guard(
        app,
        paths=paths,
        limits=BodyLimits(settings.max_body_bytes, settings.body_timeout_s),
        keys=_key_ring(settings),
        insecure=settings.insecure,
    )
    app = Access(app, routes=paths, observer=observer)
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
        expose_headers=_SHOWN_TO_PAGES,
    )


def _key_ring(settings: Settings) -> KeyRing | None:
    if settings.api_keys is None:
        return None
    # BentoML gives the workers of a server this directory, and empties it when the server starts.
    scratch = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return KeyRing(
        read_keys(settings.api_keys), shared=Path(scratch) / "sayso-key-rates" if scratch else None
    )
