"""The HTTP service: its answers, each of its errors, and the life of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from serving.api import Api
from serving.artifact import Calibration
from serving.engine import Engine
from serving.guard import BodyLimits, Guard
from serving.hosting import host_command
from serving.labels import LABELS, VOICES, Label, Voice
from serving.metrics import Observer
from serving.predictor import Article, Prediction, Predictor, WindowScores
from serving.protection import protected
from serving.segmentation import segment
from serving.settings import Settings
from serving.windows import Window

# Both are read when BentoML and its Prometheus client are imported, by the fixture below.
_TEMPORARY = tempfile.TemporaryDirectory(prefix="sayso-test-")
os.environ.setdefault("BENTOML_HOME", _TEMPORARY.name)
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", _TEMPORARY.name)
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

T = TypeVar("T")
TEXT = "The ministry denied the report on Monday. “I doubt that,” said Ana Kolar, an analyst. It rained."
NASTY = [
    "x",
    "🙂",
    "שלום עולם",
    "\u202eabc",
    "\x00\x07",
    "\u200b",
    "“",
    "U.S.",
    "a\nb",
    "e\u0301",
    "?" * 3000,
]


# --- A service as BentoML hosts it, and services over a fake model -----------------------------------------


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    """The service with the embedded model; BentoML allows one application a process."""
    from serving.service import Sayso

    with TestClient(Sayso.to_asgi(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor.load()


class FakePredictor:
    """Answers each sentence from a window of its own with the length of its text; can be held and broken."""

    manifest = SimpleNamespace(model_version="fake-1", calibration=Calibration())

    def __init__(self) -> None:
        self.gate, self.started = threading.Event(), threading.Event()
        self.gate.set()
        self.broken = False
        self.windows_run = 0

    def predict(self, articles: Sequence[Article]) -> None:
        """Warm up."""

    def prepare(self, article: Article) -> list[Window]:
        if "unheard of" in article.sentences:
            raise KeyError("unheard of")
        return [
            Window([7] * (len(text) + 1), [(0, 1)], i, range(i, i + 1), [False])
            for i, text in enumerate(article.sentences)
        ]

    def run(self, windows: Sequence[Window]) -> list[WindowScores]:
        self.started.set()
        assert self.gate.wait(30)
        self.windows_run += len(windows)
        if self.broken:
            raise RuntimeError("out of order")
        return [WindowScores([], [window.length % 100 / 100]) for window in windows]  # type: ignore[arg-type]

    def assemble(self, windows: Sequence[Window], scores: Sequence[WindowScores]) -> list[Prediction]:
        even, fifth = dict.fromkeys(LABELS, 0.25), dict.fromkeys(VOICES, 0.2)
        return [
            Prediction(Label.OTHER, 0.25, even, Voice.NONE, fifth, False, s.doubt[0], False) for s in scores
        ]


class FakeEngine(Engine):
    def __init__(self, **changes: Any) -> None:
        super().__init__(Settings(**changes), observer=Observer())
        self.fake = FakePredictor()

    def load(self) -> Any:
        return self.fake


def guarded(engine: Engine) -> Any:
    """Return the API over an engine behind its protection, without BentoML between them."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    api = Api(engine)
    app = Starlette(routes=[Mount("/", api.application())], lifespan=lifespan)
    return protected(app, engine.settings, paths=api.paths, observer=engine.observer)


def with_service(engine: FakeEngine, work: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """Return what ``work`` does with a client of the engine's service."""

    async def run() -> T:
        await engine.start()
        transport = httpx.ASGITransport(guarded(engine), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://sayso") as client:
            try:
                return await work(client)
            finally:
                engine.fake.gate.set()
                await engine.stop()

    return asyncio.run(asyncio.wait_for(run(), 60))


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error of a response after its envelope was found right."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "details"]
    assert body["error"]["code"] == code
    assert "Traceback" not in response.text
    return dict(body["error"])


# --- Answers -----------------------------------------------------------------------------------------------


def test_classify_answers_each_sentence_in_order(client: TestClient) -> None:
    sentences = ["The army denied hitting the school.", "It rained.", "It rained."]
    response = client.post("/classify", json={"sentences": sentences})
    assert response.status_code == 200
    body = response.json()
    assert list(body) == ["model", "sentences"]
    assert [result["text"] for result in body["sentences"]] == sentences
    for result in body["sentences"]:
        assert set(result["scores"]) == set(LABELS)
        assert set(result["voice_scores"]) == set(VOICES)
        assert sum(result["scores"].values()) == pytest.approx(1, abs=1e-4)
        assert result["label"] == max(result["scores"], key=result["scores"].__getitem__)
        assert result["score"] == result["scores"][result["label"]]
        assert result["doubt"] == (result["doubt_score"] >= 0.5)
        assert "start" not in result


def test_analyze_cuts_a_text_and_says_where(client: TestClient) -> None:
    text = "🙂 " + TEXT
    body = client.post("/analyze", json={"title": "Report denied", "text": text}).json()
    assert [(s["start"], s["end"]) for s in body["sentences"]] == [(s.start, s.end) for s in segment(text)]
    assert all(text[s["start"] : s["end"]] == s["text"] for s in body["sentences"])
    summary = body["summary"]
    assert sum(summary["counts"].values()) == summary["sentences"] == len(body["sentences"])
    assert sum(summary["word_shares"].values()) == pytest.approx(1, abs=1e-5)
    assert summary["words"] == sum(len(s["text"].split()) for s in body["sentences"])


def test_analyze_takes_sentences_as_they_are(client: TestClient) -> None:
    sentences = ["One. Two.", "three"]
    body = client.post("/analyze", json={"sentences": sentences}).json()
    assert [s["text"] for s in body["sentences"]] == sentences
    assert not any("start" in s or "end" in s for s in body["sentences"])


def test_context_is_seen_by_analyze_alone(client: TestClient) -> None:
    sentences = ["The ministry said the bridge is safe.", "He said that no measurement supports this."]
    alone = client.post("/classify", json={"sentences": sentences}).json()["sentences"]
    joint = client.post("/analyze", json={"sentences": sentences}).json()["sentences"]
    assert alone[1]["scores"] != joint[1]["scores"]


@pytest.mark.parametrize(
    ("path", "body"), [("/classify", {"sentences": ["A.", "B."]}), ("/analyze", {"sentences": ["A.", "B."]})]
)
def test_answers_below_the_asked_score_are_marked(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    plain = client.post(path, json=body).json()["sentences"]
    assert all("uncertain" not in sentence for sentence in plain)
    between = sum(sentence["score"] for sentence in plain) / 2
    for threshold in (0, between, 1):
        marked = client.post(path, json=body | {"abstain_below": threshold}).json()["sentences"]
        assert [s["uncertain"] for s in marked] == [s["score"] < threshold for s in plain]


@pytest.mark.parametrize("path", ["/classify", "/analyze"])
def test_label_sets_come_when_they_are_asked_for(client: TestClient, predictor: Predictor, path: str) -> None:
    body = {
        "sentences": ["The ministry denied it.", "It rained.", "A scholar doubts that."],
        "labels_90": True,
    }
    threshold = predictor.manifest.calibration.labels_90
    for sentence in client.post(path, json=body).json()["sentences"]:
        assert sentence["labels_90"][0] == sentence["label"]
        likely = {label for label, score in sentence["scores"].items() if score >= threshold}
        assert set(sentence["labels_90"]) == likely | {sentence["label"]}
    assert "labels_90" not in client.post(path, json=body | {"labels_90": False}).json()["sentences"][0]


@pytest.mark.parametrize("text", NASTY)
def test_odd_texts_get_an_answer(client: TestClient, text: str) -> None:
    classified = client.post("/classify", json={"sentences": [text]})
    assert classified.status_code == 200
    assert classified.json()["sentences"][0]["text"] == text
    analyzed = client.post("/analyze", json={"text": text})
    assert analyzed.status_code == 200
    assert "".join("".join(s["text"] for s in analyzed.json()["sentences"]).split()) == "".join(text.split())


def test_a_sentence_of_five_thousand_words_is_read_as_far_as_a_window_goes(client: TestClient) -> None:
    body = client.post("/classify", json={"sentences": ["doubt " * 5000, "short"]}).json()
    assert [result["truncated"] for result in body["sentences"]] == [True, False]


@pytest.mark.parametrize(("path", "title"), [("/classify", {}), ("/analyze", {"title": "t"})])
def test_who_wants_no_truncated_answer_gets_an_error_that_names_the_sentence(
    client: TestClient, path: str, title: dict[str, str]
) -> None:
    body = {"sentences": ["short", "doubt " * 5000], "truncate": False, **title}
    error = error_of(client.post(path, json=body), 422, "invalid_request")
    assert [(detail["path"], detail["code"]) for detail in error["details"]] == [("sentences[1]", "too_long")]
    assert client.post(path, json=body | {"sentences": ["short"]}).status_code == 200


# Words rather than letters: real tokens in real numbers, and short enough to be quick.
WORDS = st.sampled_from(
    ["The", "army", "denied", "“it”,", "analysts", "doubt", "U.S.", "שלום", "🙂", "a" * 30, "."]
)
SENTENCE = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)


def agree(result: dict[str, Any], prediction: Prediction) -> None:
    """Check that an answer is the predictor's."""
    assert result["label"] == prediction.label
    assert result["scores"] == pytest.approx(prediction.scores, abs=1e-6)
    assert result["voice_scores"] == pytest.approx(prediction.voice_scores, abs=1e-6)
    assert (result["doubt"], result["truncated"]) == (prediction.doubt, prediction.truncated)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SENTENCE, min_size=1, max_size=8), SENTENCE)
def test_http_answers_what_the_predictor_answers(
    client: TestClient, predictor: Predictor, sentences: list[str], title: str
) -> None:
    alone = client.post("/classify", json={"sentences": sentences}).json()["sentences"]
    for result, (prediction,) in zip(
        alone, predictor.predict([Article([s]) for s in sentences]), strict=True
    ):
        agree(result, prediction)
    joint = client.post("/analyze", json={"title": title, "sentences": sentences}).json()["sentences"]
    for result, prediction in zip(joint, predictor.predict([Article(sentences, title)])[0], strict=True):
        agree(result, prediction)


def test_a_megabyte_of_text_is_answered() -> None:
    engine = FakeEngine()

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/analyze", json={"text": "The mayor said the road will open. " * 30_000})

    response = with_service(engine, work)
    if response.status_code == 200:
        assert response.json()["summary"]["sentences"] == engine.fake.windows_run > 10_000
    else:
        assert "send a long article in parts" in error_of(response, 422, "invalid_request")["message"]


# --- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "place", "message"),
    [
        ("/analyze", {"text": ""}, "text", "text: String should have at least 1 character"),
        ("/analyze", {"text": " \n\t"}, "text", "text: expected more than white space"),
        ("/analyze", {}, "body", "expected either text or sentences, found neither"),
        (
            "/analyze",
            {"text": "a", "sentences": ["a"]},
            "body",
            "expected either text or sentences, found both",
        ),
        (
            "/analyze",
            {"text": "a", "titel": "b"},
            "titel",
            "unknown field; known are abstain_below, labels_90, truncate, title, text, sentences",
        ),
        ("/classify", {"sentences": []}, "sentences", "List should have at least 1 item"),
        ("/classify", {"sentences": ["a", "b", ""]}, "sentences[2]", "sentences[2]: String should have"),
        (
            "/classify",
            {"sentences": ["a", " "]},
            "sentences[1]",
            "sentences[1]: expected more than white space",
        ),
        ("/classify", [], "body", "Input should be an object"),
        ("/classify", {"sentences": ["a"], "abstain_below": 1.5}, "abstain_below", "less than or equal to 1"),
        ("/analyze", {"text": "a", "abstain_below": "high"}, "abstain_below", "valid number"),
    ],
)
def test_422_names_the_field(client: TestClient, path: str, body: Any, place: str, message: str) -> None:
    error = error_of(client.post(path, json=body), 422, "invalid_request")
    assert message in error["message"]
    assert error["details"][0]["path"] == place


def test_422_where_a_text_has_too_many_sentences() -> None:
    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/analyze", json={"text": "It rained. " * 20})

    error = error_of(with_service(FakeEngine(max_sentences=3), work), 422, "invalid_request")
    assert "expected from 1 to 3" in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b"\xff", b'{"sentences": ["\\ud800"]}', b"[" * 100_000, b"{}x"]
)
@pytest.mark.parametrize("path", ["/classify", "/analyze"])
def test_400_where_the_body_is_not_json(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert error_of(response, 400, "malformed_json")["message"].startswith("Invalid JSON")


@pytest.mark.parametrize("path", ["/nope", "/docs.json", "/schema.json", "/classify/", "/static_content/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_404_where_there_is_nothing(client: TestClient, method: str, path: str) -> None:
    error_of(client.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/classify", "POST"),
        ("OPTIONS", "/analyze", "POST"),
        ("PUT", "/classify", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ],
)
def test_405_says_what_is_allowed(client: TestClient, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    error_of(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/vnd.bentoml+pickle"},
        {"content-type": "application/jsonx"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
@pytest.mark.parametrize("path", ["/classify", "/analyze"])
def test_415_for_all_but_plain_json(client: TestClient, path: str, headers: dict[str, str]) -> None:
    response = client.post(path, content=b'{"sentences": ["a"]}', headers=headers)
    error_of(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "Application/JSON", "application/json;"]
)
def test_json_is_json_however_it_is_written(client: TestClient, content_type: str) -> None:
    headers = {"content-type": content_type}
    assert client.post("/classify", content=b'{"sentences": ["a"]}', headers=headers).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_413_over_the_limit_with_and_without_a_length(chunked: bool) -> None:
    body = json.dumps({"sentences": ["a" * 5000]}).encode()

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return await client.post("/classify", content=parts() if chunked else body, headers=headers)

    response = with_service(FakeEngine(max_body_bytes=2048), work)
    assert "2,048 bytes" in error_of(response, 413, "body_too_large")["message"]
    assert with_service(FakeEngine(max_body_bytes=len(body)), work).status_code == 200


def test_408_where_a_body_does_not_arrive() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return await client.post("/classify", content=parts(), headers=headers)

    error_of(with_service(FakeEngine(body_timeout_s=0.1), work), 408, "body_timeout")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_429_where_the_queue_is_full_says_when_to_come_back() -> None:
    engine = FakeEngine(queue_requests=1)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        engine.fake.gate.clear()
        first = asyncio.ensure_future(client.post("/classify", json={"sentences": ["a"]}))
        await until(engine.fake.started.is_set)
        second = await client.post("/classify", json={"sentences": ["a"]})
        engine.fake.gate.set()
        return [await first, second]

    first, second = with_service(engine, work)
    assert first.status_code == 200
    error_of(second, 429, "overloaded")
    assert int(second.headers["retry-after"]) >= 1


def test_503_before_the_start_and_after_the_stop() -> None:
    engine = FakeEngine()

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        assert engine.ready
        await engine.stop()
        assert not engine.ready
        return await client.post("/classify", json={"sentences": ["a"]})

    assert not engine.ready
    response = with_service(engine, work)
    error_of(response, 503, "unavailable")
    assert "retry-after" in response.headers


def test_504_after_the_deadline() -> None:
    engine = FakeEngine(deadline_s=0.1)

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        engine.fake.gate.clear()
        return await client.post("/classify", json={"sentences": ["a"]})

    assert "0.1 s" in error_of(with_service(engine, work), 504, "deadline_exceeded")["message"]


@pytest.mark.parametrize("sentence", ["broken round", "unheard of"])
def test_500_tells_nothing(sentence: str) -> None:
    engine = FakeEngine()
    engine.fake.broken = sentence == "broken round"

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/classify", json={"sentences": [sentence]})

    response = with_service(engine, work)
    assert error_of(response, 500, "internal_error")["details"] == []
    assert "order" not in response.text
    assert "unheard" not in response.text


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "unavailable"), (504, "deadline_exceeded"), (404, "not_found"), (418, "internal_error")],
)
def test_errors_of_the_layers_below_are_put_into_the_envelope(status: int, code: str) -> None:
    async def below(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/html")]}
        )
        await send({"type": "http.response.body", "body": b"<p>Tra", "more_body": True})
        await send({"type": "http.response.body", "body": b"ceback</p>"})

    guard = Guard(below, paths={"/": frozenset({"GET"})}, limits=BodyLimits(1024, 1))
    response = TestClient(guard).get("/")
    error_of(response, response.status_code, code)
    assert response.status_code == (status if status != 418 else 500)


def test_the_work_of_a_client_that_left_is_dropped() -> None:
    engine = FakeEngine(batch_tokens=16)
    sent: list[Any] = []

    async def run() -> None:
        await engine.start()
        engine.fake.gate.clear()
        body = json.dumps({"sentences": ["a" * 15] * 50}).encode()

        async def receive() -> dict[str, Any]:
            if not sent:
                sent.append("body")
                return {"type": "http.request", "body": body, "more_body": False}
            await until(engine.fake.started.is_set)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "headers": headers,
            "query_string": b"",
        }
        await guarded(engine)(scope, receive, send)
        engine.fake.gate.set()
        await engine.stop()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert engine.fake.windows_run <= 2


# --- Beside the answers ------------------------------------------------------------------------------------


def test_health_is_told(client: TestClient) -> None:
    for path in ("/livez", "/healthz", "/readyz"):
        assert client.get(path).status_code == client.head(path).status_code == 200


def test_metrics_count_known_paths_only_and_tell_of_the_queue(client: TestClient) -> None:
    client.post("/classify", json={"sentences": ["a"]})
    client.get("/surely-not-there")
    metrics = client.get("/metrics").text
    for name in (
        "sayso_queue_requests",
        "sayso_queue_wait_seconds_count",
        "sayso_tokens_total",
        "sayso_model{",
    ):
        assert f"\n{name}" in metrics
    assert 'sayso_requests_total{code="200",route="/classify"}' in metrics
    assert 'sayso_requests_total{code="404",route="(unknown)"}' in metrics
    assert "sayso_labels_total{label=" in metrics
    assert "surely" not in metrics


def test_the_index_names_every_path(client: TestClient) -> None:
    body = client.get("/").json()
    assert set(body["paths"]) == set(client.get("/openapi.json").json()["paths"])
    assert body["model"]


def test_the_openapi_document_is_valid_and_its_examples_are_answered(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {None: {"value": None}}).values():
                response = client.request(method, path, json=example["value"])
                check_against(document, operation, response)
                assert response.status_code == 200


@pytest.mark.parametrize(
    "body", ["{", "{}", '{"sentences": []}', '{"text": "A. B."}', '{"sentences": ["a"]}']
)
@pytest.mark.parametrize("path", ["/classify", "/analyze"])
def test_answers_are_as_the_openapi_document_says(client: TestClient, path: str, body: str) -> None:
    document = client.get("/openapi.json").json()
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    check_against(document, document["paths"][path]["post"], response)


def check_against(document: dict[str, Any], operation: dict[str, Any], response: httpx.Response) -> None:
    """Check a response against what the document says of its status."""
    said = operation["responses"][str(response.status_code)]
    if "$ref" in said:
        said = document["components"]["responses"][said["$ref"].rpartition("/")[2]]
    media_type = response.headers["content-type"].partition(";")[0]
    schema = said["content"][media_type]["schema"]
    if media_type == "application/json":
        jsonschema.validate(response.json(), schema | {"components": document["components"]})


def test_the_schema_of_requests_refuses_what_the_service_refuses(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["AnalyzeRequest"]
    bodies: list[dict[str, Any]] = [
        {"text": "a"},
        {"text": "a", "sentences": None, "title": None},
        {"sentences": ["a"], "title": "b"},
        {"text": "a", "sentences": ["a"]},
        {"title": "a"},
        {"text": " "},
        {"sentences": []},
        {"text": "a", "more": 1},
    ]
    for body in bodies:
        valid = jsonschema.Draft202012Validator(schema).is_valid(body)
        assert (client.post("/analyze", json=body).status_code == 200) == valid, body


def test_importing_the_service_imports_no_torch_and_nothing_of_training() -> None:
    heavy = ("torch", "transformers", "sklearn", "datasets", "training", "pandas", "pyarrow")
    code = f"import sys, serving.service; print([m for m in {heavy} if m in sys.modules])"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SAYSO_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_only_the_service_imports_bentoml() -> None:
    package = Path(sys.modules[Engine.__module__].__file__ or "").parent
    found = [
        p.name
        for p in package.glob("*.py")
        if "import bentoml" in p.read_text() or "from bentoml" in p.read_text()
    ]
    assert found == ["service.py"]


# --- Processes ---------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def server(home: Path, **changes: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a running server and its address."""
    chosen = Settings(port=free_port(), **changes)
    command = host_command(chosen, {**os.environ, "BENTOML_HOME": str(home)})
    environ = {name: value for name, value in command.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    process = subprocess.Popen(
        command.argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home
    )
    try:
        yield process, f"http://{chosen.host}:{chosen.port}"
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def wait_until(condition: Callable[[], bool], *, seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def test_a_server_starts_answers_and_on_sigterm_answers_what_it_has_accepted(tmp_path: Path) -> None:
    # A module of this name in the directory where it is called from is not the service's.
    (tmp_path / "serving.py").write_text("raise SystemExit('imported from the working directory')")
    with server(tmp_path) as (process, url):
        wait_until(lambda: process.poll() is not None or answers(f"{url}/readyz"))
        assert process.poll() is None, process.communicate()[0]
        results: list[httpx.Response] = []
        large = {"sentences": ["The minister denied the report, and said that nothing of it was true."] * 200}
        call = threading.Thread(
            target=lambda: results.append(httpx.post(f"{url}/classify", json=large, timeout=150))
        )
        call.start()
        wait_until(lambda: "sayso_queue_requests 1.0" in httpx.get(f"{url}/metrics").text or bool(results))
        assert not results
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0
        call.join(150)
        assert results[0].status_code == 200
        assert len(results[0].json()["sentences"]) == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SAYSO_MODEL": "/nowhere/at-all"}, "/nowhere/at-all: not a model directory"),
        (
            {"SAYSO_MAX_SENTENCES": "many"},
            "SAYSO_MAX_SENTENCES: found 'many', expected a whole number of at least 1",
        ),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    command = host_command(Settings(port=free_port()), {**os.environ, "BENTOML_HOME": str(tmp_path)})
    done = subprocess.run(
        command.argv, env=command.environ | changes, capture_output=True, text=True, timeout=150
    )
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert message in line
