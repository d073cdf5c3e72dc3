"""What stands before the application: API keys, headers, request ids, CORS, and a log that tells no secrets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.cli import main
from serving.errors import SaysoError
from serving.keys import BURST_S, ApiKey, KeyRing, digest, new_key, read_keys
from serving.logs import JsonFormatter, TextFormatter
from serving.metrics import Observer
from serving.protection import protected
from serving.settings import Settings, SettingsError

T = TypeVar("T")
ELSEWHERE = "http://10.1.2.3"
HERE = "http://127.0.0.1"


# --- API keys ----------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True), st.integers(0, 10**6)),
        min_size=1,
        unique_by=lambda pair: pair[0],
    )
)
def test_a_keys_file_gives_back_the_keys_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, named: list[tuple[str, int]]
) -> None:
    made = [new_key(name, per_minute) for name, per_minute in named]
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text("# ours\n\n" + "".join(f"  {key.line()}  # a note\n" for _, key in made))
    keys = read_keys(path)
    assert keys == [key for _, key in made]
    ring = KeyRing(keys)
    for token, key in made:
        assert ring.owner(token.encode()) == key
        assert ring.owner(token[:-1].encode()) is None
        assert token not in path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("a sha256:00", r":1: expected a name, sha256:"),
        ("\na plain-token", r":2: expected a name"),
        (f"a sha256:{'0' * 64} often", r":1: expected"),
        (f"a b sha256:{'0' * 64}", r":1: expected"),
        (f"a sha256:{'0' * 64}\na sha256:{'1' * 64}", r":2: a second key called a"),
    ],
)
def test_a_keys_file_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(SaysoError, match=message):
        read_keys(path)
    with pytest.raises(SaysoError, match="cannot be read"):
        read_keys(tmp_path)


@given(st.integers(1, 600), st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_a_key_never_gets_more_than_its_rate_and_one_burst(per_minute: int, pauses: list[float]) -> None:
    now = 1000.0
    ring = KeyRing([key := ApiKey("k", b"", per_minute)], clock=lambda: now)
    admitted = 0
    for pause in pauses:
        now += pause
        wait = ring.wait_s(key)
        if wait:
            before, now = now, now + wait + 1e-3
            assert not ring.wait_s(key), "the wait that it named was too short"
            assert now > before
        admitted += 1
    allowed = (now - 1000 + max(BURST_S, 60 / per_minute)) * per_minute / 60
    assert admitted <= allowed + 1


def test_the_workers_of_a_server_count_together(tmp_path: Path) -> None:
    key = ApiKey("k", digest(b"t"), per_minute=60)
    rings = [KeyRing([key], shared=tmp_path / "rates", clock=lambda: 5.0) for _ in range(2)]
    taken = [not rings[i % 2].wait_s(key) for i in range(20)]
    assert sum(taken) == 60 * BURST_S / 60


def test_new_key_prints_the_token_and_keeps_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    run = lambda *args: CliRunner().invoke(main, ["new-key", *args, "--file", str(path)])  # noqa: E731
    first, second = run("newsroom"), run("archive", "--per-minute", "60")
    assert [key.name for key in read_keys(path)] == ["newsroom", "archive"]
    assert KeyRing(read_keys(path)).owner(second.stdout.strip().encode()) == read_keys(path)[1]
    assert path.stat().st_mode & 0o077 == 0
    again = run("newsroom")
    assert again.exit_code == 2
    assert "has a key called newsroom already" in again.stderr
    assert first.stdout.startswith("sayso_")
    assert run("a b").exit_code == 2


# --- The service behind it ---------------------------------------------------------------------------------


class Answers(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def answered(self, *, route: str, status: int, seconds: float) -> None:
        self.seen.append((route, status))


async def _echo(request: Request) -> Response:
    if b"break" in await request.body():
        raise RuntimeError("secret words of an article")
    return JSONResponse({"ok": True})


PATHS = {"/": frozenset({"GET"}), "/classify": frozenset({"POST"}), "/readyz": frozenset({"GET"})}


def call(
    work: Callable[[httpx.AsyncClient], Awaitable[T]],
    *,
    base: str = HERE,
    observer: Observer | None = None,
    **changes: Any,
) -> T:
    """Return what ``work`` does with a client of a small application behind the protection."""
    app = Starlette(routes=[Route(path, _echo, methods=list(methods)) for path, methods in PATHS.items()])
    outer = protected(app, Settings(**changes), paths=PATHS, observer=observer or Observer())

    async def run() -> T:
        transport = httpx.ASGITransport(outer, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await work(client)

    return asyncio.run(run())


def post(
    base: str = HERE, headers: Mapping[str, str] | None = None, json: Any = None, **changes: Any
) -> httpx.Response:
    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/classify", json=json or {}, headers=headers)

    return call(work, base=base, **changes)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A keys file with one key of six requests a minute, and its token."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    token, key = new_key("newsroom", 6)
    path = tmp_path / "keys.txt"
    path.write_text(key.line())
    return path, token


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer nonsense", "Basic {}", "{}", "Bearer {} {}"]
)
def test_a_request_without_a_valid_key_is_refused(keys: tuple[Path, str], header: str | None) -> None:
    path, token = keys
    headers = {} if header is None else {"Authorization": header.format(token, token)}
    response = post(headers=headers, api_keys=path)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_key_opens_the_service_until_its_rate_is_spent(keys: tuple[Path, str]) -> None:
    path, token = keys
    first, second = (
        post(headers={"Authorization": f"bearer {token}"}, api_keys=path, base=ELSEWHERE) for _ in range(2)
    )
    assert first.status_code == 200
    assert second.status_code == 429
    assert second.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(second.headers["retry-after"]) <= 10


def test_whether_it_lives_and_how_to_call_it_needs_no_key(keys: tuple[Path, str]) -> None:
    async def work(client: httpx.AsyncClient) -> list[int]:
        return [(await client.get(path)).status_code for path in ("/", "/readyz")]

    assert call(work, api_keys=keys[0], base=ELSEWHERE) == [200, 200]


def test_without_keys_only_this_machine_may_call_unless_told_otherwise() -> None:
    assert post(base=HERE).status_code == post(base="http://[::1]").status_code == 200
    refused = post(base=ELSEWHERE)
    assert refused.status_code == 401
    assert "SAYSO_API_KEYS" in refused.json()["error"]["message"]
    assert post(base=ELSEWHERE, insecure=True).status_code == 200


def test_a_server_for_others_does_not_start_without_keys(keys: tuple[Path, str]) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1"):
        with pytest.raises(SettingsError, match=r"sayso new-key .*SAYSO_INSECURE=1"):
            Settings(host=host).check_open()
        Settings(host=host, insecure=True).check_open()
        Settings(host=host, api_keys=keys[0]).check_open()
    Settings(host="127.0.0.2").check_open()


# --- Headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/nowhere"), ("PUT", "/classify"), ("POST", "/classify")]
)
def test_every_answer_says_that_it_is_data_and_not_to_be_kept(method: str, path: str) -> None:
    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(method, path)

    headers = call(work).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"] == "no-store"
    assert len(headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("given_id", "kept"), [("a-1.b_C", True), ("x" * 65, False), ("a b", False), ("", False), ("a\tb", False)]
)
def test_a_well_formed_request_id_is_given_back(given_id: str, kept: bool) -> None:
    found = post(headers={"X-Request-ID": given_id}).headers["x-request-id"]
    assert (found == given_id) == kept
    assert found


def test_other_origins_may_not_read_answers_unless_configured() -> None:
    preflight = {"Origin": "https://news.example", "Access-Control-Request-Method": "POST"}

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.options("/classify", headers=preflight)

    assert call(ask).status_code == 405
    assert "access-control-allow-origin" not in post(headers=preflight).headers
    origins = ("https://news.example", "https://desk.example")
    allowed = call(ask, cors_origins=origins)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://news.example"
    other = post(headers={"Origin": "https://evil.example"}, cors_origins=origins)
    assert "access-control-allow-origin" not in other.headers


# --- The log and the metrics -------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines that the service's own loggers write, as JSON and as text."""
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(JsonFormatter().format(record))
            written.append(TextFormatter().format(record))

    handler, logger = Keep(), logging.getLogger("sayso")
    logger.addHandler(handler)
    before, level = logger.level, logging.INFO
    logger.setLevel(level)
    yield written
    logger.setLevel(before)
    logger.removeHandler(handler)


def test_a_line_tells_what_was_asked_and_answered_and_nothing_of_the_article(
    keys: tuple[Path, str], lines: list[str]
) -> None:
    path, token = keys
    post(headers={"Authorization": f"Bearer {token}"}, json={"sentences": ["secret words"]}, api_keys=path)
    line = json.loads(lines[0])
    assert line["route"] == "/classify"
    assert line["method"] == "POST"
    assert (line["status"], line["key"], line["level"]) == (200, "newsroom", "info")
    assert line["ms"] >= 0
    assert not [text for text in lines if "secret" in text or token in text]


@given(path=st.text(max_size=60), method=st.text(st.characters(codec="ascii"), min_size=1, max_size=8))
def test_lines_cannot_be_forged_nor_metrics_flooded(path: str, method: str) -> None:
    written: list[str] = []
    observer = Answers()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.extend(formatter.format(record) for formatter in (JsonFormatter(), TextFormatter()))

    async def send() -> None:
        outer = protected(Starlette(), Settings(), paths=PATHS, observer=observer)
        scope = {
            "type": "http",
            "path": f"/{path}\n",
            "method": method,
            "headers": [(b"x-request-id", b"a\nb")],
            "server": ("127.0.0.1", 80),
            "query_string": b"",
        }

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def answer(message: Any) -> None: ...

        await outer(scope, receive, answer)

    handler, logger = Keep(), logging.getLogger("sayso")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        asyncio.run(send())
    finally:
        logger.removeHandler(handler)
    assert len(written) == 2
    assert all("\n" not in line and line.isprintable() for line in written)
    assert observer.seen == [("(unknown)", 404)]


def test_a_failure_is_recorded_without_its_words() -> None:
    record = logging.LogRecord("sayso.api", logging.ERROR, "f", 1, "the model failed", None, None)
    try:
        try:
            raise ValueError("secret words of an article")
        except ValueError as error:
            raise RuntimeError("more secret words") from error
    except RuntimeError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    for formatter in (JsonFormatter(), TextFormatter()):
        text = formatter.format(record)
        assert "ValueError" in text
        assert "RuntimeError" in text
        assert "test_protection.py" in text
        assert "secret words" not in text.replace('raise ValueError("secret words', "").replace(
            'raise RuntimeError("more secret words', ""
        ).replace('raise ValueError(\\"secret words', "").replace(
            'raise RuntimeError(\\"more secret words', ""
        )
