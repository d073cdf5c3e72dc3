"""API keys: who may call, and how often.

A key is a random token. The keys file holds its SHA-256 only, one key a line:

    newsroom   sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08   600

The name is for logs, the number (optional) the requests a minute that it may make. Several keys may belong to the
same caller, so that one can be replaced by another while both are valid.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.errors import SaysoError

# A caller may use up at once what it could have made in this time.
BURST_S = 10.0

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"({_NAME.pattern})\s+sha256:([0-9a-f]{{64}})(?:\s+([1-9][0-9]{{0,8}}))?")
_LARGEST_FILE = 2**20


@dataclass(frozen=True)
class ApiKey:
    """A key as the file has it; ``per_minute`` is 0 where nothing limits it."""

    name: str
    digest: bytes
    per_minute: int = 0

    def line(self) -> str:
        """Return the key as a line of a keys file."""
        return f"{self.name} sha256:{self.digest.hex()}" + (f" {self.per_minute}" if self.per_minute else "")


def new_key(name: str, per_minute: int = 0) -> tuple[str, ApiKey]:
    """Return a new token, and the key that recognises it; raises SaysoError at a name that cannot be used."""
    if not _NAME.fullmatch(name):
        raise SaysoError(f"{name!r} cannot name a key; expected up to 64 letters, digits, '.', '_' or '-'")
    token = "sayso_" + secrets.token_urlsafe(32)
    return token, ApiKey(name, digest(token.encode()), per_minute)


def digest(token: bytes) -> bytes:
    """Return a token's digest. Tokens are random and long, so that a slow hash would add nothing."""
    return hashlib.sha256(token).digest()


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a file; raises SaysoError that names the line of a malformed one."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SaysoError(f"{path}: cannot be read as API keys ({error})") from None
    if len(text) > _LARGEST_FILE:
        raise SaysoError(f"{path}: larger than {_LARGEST_FILE:,} bytes, so not a file of API keys")
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (line := line.partition("#")[0].strip()):
            continue
        if not (match := _LINE.fullmatch(line)):
            raise SaysoError(f"{path}:{number}: expected a name, sha256:…, and perhaps requests a minute")
        name, found, per_minute = match.groups()
        if name in keys:
            raise SaysoError(f"{path}:{number}: a second key called {name}; give each its own name")
        keys[name] = ApiKey(name, bytes.fromhex(found), int(per_minute or 0))
    if not keys:
        raise SaysoError(f"{path}: holds no key; make one with `sayso new-key NAME --file {path}`")
    return list(keys.values())


class KeyRing:
    """Recognises tokens, and counts what each key does.

    ``shared`` is a file through which the worker processes of one server count together; without it each for itself.
    """

    def __init__(
        self, keys: Sequence[ApiKey], *, shared: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = list(keys)
        self._clock = clock
        self._arrivals = _doubles(len(self._keys), shared)

    def owner(self, token: bytes) -> ApiKey | None:
        """Return the key that a token belongs to; the time taken tells nothing about how near a guess was."""
        found, owner = digest(token), None
        for key in self._keys:
            if hmac.compare_digest(found, key.digest):
                owner = key
        return owner

    def wait_s(self, key: ApiKey) -> float:
        """Return 0 and count a request of the key, or return how many seconds to wait before one is taken.

        The generic cell rate algorithm (ITU-T I.371): one number a key, the time at which it will have made up for
        all its requests so far. Two processes that write it at once let one request more pass.
        """
        if not key.per_minute:
            return 0.0
        index, now, cost = self._keys.index(key), self._clock(), 60 / key.per_minute
        arrival = max(self._arrivals[index], now) + cost
        wait = arrival - now - max(BURST_S, cost)
        if wait > 1e-6:
            return wait
        self._arrivals[index] = arrival
        return 0.0


def _doubles(count: int, shared: Path | None) -> memoryview[float]:
    size = 8 * max(count, 1)
    if shared is None:
        return memoryview(bytearray(size)).cast("d")
    descriptor = os.open(shared, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        return memoryview(mmap.mmap(descriptor, size)).cast("d")
    finally:
        os.close(descriptor)
