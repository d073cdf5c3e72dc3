"""The BentoML service: only wiring.

``bentoml serve serving.service:Sayso`` and ``sayso serve`` run it. The HTTP API is mounted on BentoML, which
hosts it: processes, sockets, health, metrics, logs. The guard lies outside of all that.
"""

# BentoML's classes and decorators are not typed.
# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import bentoml
from bentoml.exceptions import BentoMLConfigException

from serving.api import Api
from serving.engine import Engine
from serving.errors import SaysoError
from serving.logs import configure_logging
from serving.protection import protected
from serving.settings import Settings

try:
    settings = Settings.from_env()
    settings.check_open()
except SaysoError as error:
    raise BentoMLConfigException(str(error)) from None
engine = Engine(settings)
api = Api(engine)
HOST_PATHS = dict.fromkeys(("/livez", "/healthz", "/readyz", "/metrics"), frozenset({"GET", "HEAD"}))


class GuardedService(bentoml.Service[Any]):
    """A service whose application is wrapped in the guard, BentoML's own middleware included."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return the application that workers run."""
        configure_logging(settings.log_format)
        return protected(
            super().to_asgi(is_main), settings, paths=api.paths | HOST_PATHS, observer=engine.observer
        )


@bentoml.service(
    service_class=GuardedService,
    workers=settings.workers,
    http={"host": settings.host, "port": settings.port},
    # The engine keeps the deadline; this one is only for when it cannot.
    traffic={"timeout": settings.deadline_s + 5},
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},  # ours has no paths and no texts of others
)
@bentoml.asgi_app(api.application(), name="sayso")
class Sayso:
    """Labels every sentence of a news article by who stands behind it."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Load the model once before there are workers: they would try for ever."""
        try:
            engine.load()
        except SaysoError as error:
            raise BentoMLConfigException(str(error)) from None

    @bentoml.on_startup
    async def start(self) -> None:
        """Load the model and warm it up; each worker has its own."""
        await engine.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Answer what was accepted."""
        await engine.stop()

    async def __is_ready__(self) -> bool:
        return engine.ready
