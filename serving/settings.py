"""The service's settings: one frozen class, read once from the environment, every value checked."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from serving.errors import SaysoError

PREFIX = "SAYSO_"
LOG_FORMATS = ("auto", "text", "json")
_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


# Scheme, host and perhaps a port: no path, and no star, which would let every page on the web call.
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")

T = TypeVar("T")


class SettingsError(SaysoError):
    """A setting that cannot be used; the message names the variable, what was found and what is expected."""


def _number(default: float, *, least: float, most: float = math.inf, text: str) -> Any:
    return field(default=default, metadata={"least": least, "most": most, "text": text})


@dataclass(frozen=True)
class Settings:
    """What an operator can set. Each field is read from ``SAYSO_`` and its name in capitals."""

    model: Path | None = field(default=None, metadata={"text": "model directory; unset: the embedded one"})
    host: str = field(default="127.0.0.1", metadata={"text": "IP address to listen on"})
    port: int = _number(3000, least=1, most=65535, text="port to listen on")
    workers: int = _number(1, least=1, most=1024, text="processes that answer; each holds its own model")
    threads: int = _number(0, least=0, most=1024, text="windows read side by side; 0: cores / workers")

    api_keys: Path | None = field(
        default=None,
        metadata={"text": "file of API keys (sayso new-key makes one); unset: none is asked for"},
    )
    insecure: bool = field(
        default=False, metadata={"text": "whether others than this machine need no API key"}
    )
    cors_origins: tuple[str, ...] = field(
        default=(), metadata={"text": "origins (https://example.org, …) whose pages may call the service"}
    )
    log_format: str = field(
        default="auto", metadata={"text": "text or json; auto: text on a terminal", "of": LOG_FORMATS}
    )

    max_body_bytes: int = _number(2 * 2**20, least=1024, text="largest request body")
    max_sentences: int = _number(20_000, least=1, text="most sentences in one request")
    max_sentence_chars: int = _number(50_000, least=1, text="longest sentence or title, in characters")
    max_text_chars: int = _number(1_500_000, least=1, text="longest article text, in characters")

    batch_tokens: int = _number(0, least=0, text="most tokens in a round; 0: 512 a thread")
    queue_requests: int = _number(256, least=1, text="most requests under way; one more is answered 429")
    queue_tokens: int = _number(1_000_000, least=16, text="most tokens waiting; with more a request gets 429")
    deadline_s: float = _number(60.0, least=0.001, most=3600, text="seconds until a request is answered 504")
    body_timeout_s: float = _number(
        10.0, least=0.001, most=3600, text="seconds that a body may take to arrive"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of an environment; raise SettingsError at a value that cannot be used."""
        names = {PREFIX + f.name.upper(): f for f in fields(cls)}
        for name in environ:
            if name.startswith(PREFIX) and name not in names:
                _refuse_misspelt(name, list(names))
        given = {name: environ[name].strip() for name in names if environ.get(name, "").strip()}
        return cls(**{names[name].name: _read(name, value, names[name]) for name, value in given.items()})

    def environment(self) -> dict[str, str]:
        """Return the variables that make these settings in another process."""
        values = {PREFIX + f.name.upper(): getattr(self, f.name) for f in fields(self)}
        return {name: _written(value) for name, value in values.items() if value is not None}

    def check_open(self) -> None:
        """Raise SettingsError where other machines can reach the service, and it asks for no API key."""
        if self.api_keys or self.insecure or ipaddress.ip_address(self.host).is_loopback:
            return
        raise SettingsError(
            f"{PREFIX}HOST is {self.host}, so other machines can call; make an API key with `sayso new-key NAME"
            f" --file keys.txt` and set {PREFIX}API_KEYS=keys.txt (--api-keys), or say that it is open to all with"
            f" {PREFIX}INSECURE=1 (--insecure)"
        )

    @property
    def shutdown_s(self) -> int:
        """How long a stopping worker may take to answer what it has accepted."""
        return math.ceil(self.deadline_s + self.body_timeout_s) + 5

    @property
    def worker_threads(self) -> int:
        """How many windows a worker reads side by side: what is set, or else its share of the cores."""
        return self.threads or max(1, available_cores() // self.workers)

    @property
    def round_tokens(self) -> int:
        """The most tokens in a round: what is set, or else enough to keep a worker's threads busy."""
        return self.batch_tokens or 512 * self.worker_threads


def available_cores() -> int:
    """Return the cores that this process may use; only Linux tells them from those that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(name: str, value: str, of: Any) -> Any:
    match of.default:
        case None:
            return Path(value).expanduser().absolute()
        case bool():
            return _choice(name, value.lower(), _TRUTHS)
        case tuple():
            return tuple(_origin(name, part.strip()) for part in value.split(",") if part.strip())
        case str() if of.name == "host":
            return _host(name, value)
        case str():
            return _choice(name, value.lower(), {choice: choice for choice in of.metadata["of"]})
    return _checked_number(name, value, of)


def _written(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _choice(name: str, value: str, choices: Mapping[str, T]) -> T:
    if value not in choices:
        raise SettingsError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")
    return choices[value]


def _origin(name: str, value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise SettingsError(
            f"{name}: found {value!r}, expected origins such as https://example.org, and commas"
        )
    return value


def _host(name: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if value == "localhost" else value))
    except ValueError:
        raise SettingsError(
            f"{name}: found {value!r}, expected an IP address: 127.0.0.1 (this machine), 0.0.0.0 (all), …"
        ) from None


def _checked_number(name: str, value: str, of: Any) -> float:
    whole = isinstance(of.default, int)
    least, most = of.metadata["least"], of.metadata["most"]
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = math.nan
    if not least <= number <= most or math.isinf(number):
        kind = "a whole number" if whole else "a number"
        limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        meaning = of.metadata["text"]
        raise SettingsError(f"{name}: found {value!r}, expected {kind} {limits} ({meaning}){_hint(value)}")
    return number


def _hint(value: str) -> str:
    """Return what to do where Kubernetes has set a variable for a service that happens to be called sayso."""
    if not value.startswith("tcp://"):
        return ""
    return "; Kubernetes sets it for a service called sayso: set enableServiceLinks: false in the pod"


def _refuse_misspelt(name: str, names: list[str]) -> None:
    # Only near misses: other tools, and Kubernetes, may own variables with the same prefix.
    if near := difflib.get_close_matches(name, names, n=1, cutoff=0.87):
        raise SettingsError(f"{name}: no such setting; did you mean {near[0]}?")
