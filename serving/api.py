"""The HTTP API: from a request's body to a response's. It knows nothing of the server that hosts it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.batching import DeadlineError, DrainingError, QueueFullError, RoundError, offload
from serving.engine import Engine
from serving.guard import ApiError
from serving.openapi import openapi_document
from serving.predictor import Article, Prediction
from serving.schemas import (
    MAX_DETAILS,
    AnalyzeRequest,
    AnalyzeResponse,
    ClassifyResponse,
    ErrorCode,
    ErrorDetail,
    ReadingRequest,
    SentenceResult,
    error_details,
    request_models,
    sentence_result,
    summarize,
)
from serving.segmentation import Span, segment

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_log = logging.getLogger("sayso.api")
_TOO_LONG = 'longer than the model reads at once; without "truncate": false it is read as far as it goes'


class Api:
    """The service's own routes over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.requests = request_models(engine.settings)
        self.document = openapi_document(engine.settings, self.requests)
        self.routes = [
            Route("/", self.index, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/classify", self.classify, methods=["POST"]),
            Route("/analyze", self.analyze, methods=["POST"]),
        ]

    @property
    def paths(self) -> dict[str, frozenset[str]]:
        """The paths of the routes, each with its methods."""
        return {route.path: frozenset(route.methods or ()) for route in self.routes}

    def application(self) -> Starlette:
        """Return the routes as an application to mount."""
        return Starlette(routes=self.routes, exception_handlers=_HANDLERS)

    async def index(self, request: Request) -> Response:
        """Answer with what there is."""
        paths = {path: next(iter(item.values()))["summary"] for path, item in self.document["paths"].items()}
        return JSONResponse({"service": "Sayso", "model": self.engine.model_version, "paths": paths})

    async def openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document."""
        return JSONResponse(self.document)

    async def classify(self, request: Request) -> Response:
        """Label sentences, each read alone."""
        body = await _parsed(request, self.requests.classify)
        articles = [Article([text]) for text in body.sentences]
        answers = await _while_connected(request, self.engine.predict(articles))

        predictions = [answer[0] for answer in answers]
        self._count(body, predictions)

        def response() -> bytes:
            result = self._result(body)
            results = list(map(result, body.sentences, predictions))
            return _json(ClassifyResponse(model=self.engine.model_version, sentences=results))

        return await _respond(sum(map(len, body.sentences)), response)

    async def analyze(self, request: Request) -> Response:
        """Label the sentences of one article, read in context."""
        body = await _parsed(request, self.requests.analyze)
        pieces = await self._pieces(body)
        article = Article([text for text, _ in pieces], title=body.title or "")
        (answer,) = await _while_connected(request, self.engine.predict([article]))

        self._count(body, answer)

        def response() -> bytes:
            pairs = zip(pieces, answer, strict=True)
            result = self._result(body)
            results = [result(text, prediction, span) for (text, span), prediction in pairs]
            model = self.engine.model_version
            return _json(AnalyzeResponse(model=model, sentences=results, summary=summarize(results)))

        return await _respond(sum(map(len, article.sentences)), response)

    def _count(self, body: ReadingRequest, predictions: Sequence[Prediction]) -> None:
        """Count the labels; raise ApiError where a sentence was not read to its end and that was not allowed."""
        if not body.truncate and (cut := [i for i, p in enumerate(predictions) if p.truncated]):
            path = "text" if getattr(body, "text", None) else "sentences"
            raise _invalid(
                [
                    ErrorDetail(path=f"{path}[{i}]", code="too_long", message=_TOO_LONG)
                    for i in cut[:MAX_DETAILS]
                ]
            )
        self.engine.observer.labelled(Counter(p.label for p in predictions))

    def _result(self, body: ReadingRequest) -> Callable[..., SentenceResult]:
        """Return ``sentence_result`` with what the request wants besides the labels."""
        threshold = self.engine.calibration.labels_90 if body.labels_90 else None
        return partial(sentence_result, abstain_below=body.abstain_below, labels_90=threshold)

    async def _pieces(self, body: AnalyzeRequest) -> list[tuple[str, Span | None]]:
        """Return the article's sentences, each with its place in the text where there is a text."""
        text = body.text
        if text is None:
            return [(sentence, None) for sentence in body.sentences or ()]
        spans = await offload(len(text), lambda: segment(text))
        most = self.engine.settings.max_sentences
        if not 1 <= len(spans) <= most:
            message = f"found {len(spans)} sentences, expected from 1 to {most}; send a long article in parts"
            raise _invalid([ErrorDetail(path="text", code="sentences", message=message)])
        return [(text[span.start : span.end], span) for span in spans]


async def _parsed(request: Request, model: type[M]) -> M:
    """Return the body as a model; raise ApiError where it is not JSON, or not what is expected."""
    body = await request.body()
    try:
        return await offload(len(body), lambda: model.model_validate_json(body))
    except ValidationError as error:
        details = error_details(error, model)
    if details[0].code == "json_invalid":
        raise ApiError(ErrorCode.MALFORMED_JSON, details[0].message)
    raise _invalid(details)


def _invalid(details: list[ErrorDetail]) -> ApiError:
    first, more = details[0], len(details) - 1
    message = f"{first.path}: {first.message}" + (f" (and {more} more)" if more else "")
    return ApiError(ErrorCode.INVALID_REQUEST, message, details=details)


def _json(response: BaseModel) -> bytes:
    return response.model_dump_json(exclude_none=True).encode()


async def _respond(chars: int, body: Any) -> Response:
    return Response(await offload(chars, body), media_type="application/json")


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; cancel it when the client goes away."""

    async def client_leaves() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.create_task(work), asyncio.create_task(client_leaves())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise ApiError(ErrorCode.CLIENT_GONE)
    finally:
        answering.cancel()
        leaving.cancel()


async def _answer_error(request: Request, error: Exception) -> Response:
    return _as_api_error(error).response()


def _as_api_error(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case QueueFullError():
            later = {"Retry-After": str(error.retry_after_s)}
            return ApiError(ErrorCode.OVERLOADED, str(error), headers=later)
        case DrainingError():
            return ApiError(ErrorCode.UNAVAILABLE, headers={"Retry-After": "1"})
        case DeadlineError():
            return ApiError(ErrorCode.DEADLINE_EXCEEDED, f"{error}; send less at once, or try again later")
        case RoundError():
            _log.error("the model failed on a round", exc_info=error.__cause__)
    return ApiError(ErrorCode.INTERNAL_ERROR)


# What is not named here is answered as an internal error too, and then raised on into the server's log.
_NAMED = (ApiError, QueueFullError, DrainingError, DeadlineError, RoundError)
_HANDLERS: Mapping[Any, Any] = dict.fromkeys((*_NAMED, Exception), _answer_error)
