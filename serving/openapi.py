"""The OpenAPI document of the service, made from the same models that read and write its bodies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib import metadata
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.labels import Label
from serving.schemas import (
    SENTENCES_EXAMPLE,
    TEXT_EXAMPLE,
    TITLE_EXAMPLE,
    AnalyzeResponse,
    ClassifyResponse,
    Error,
    ErrorCode,
    ErrorEnvelope,
    RequestModels,
)
from serving.settings import Settings

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"

_DESCRIPTION = (
    "On whose say-so? Labels every sentence of a news article by who stands behind it: "
    + ", ".join(f"`{label}`" for label in Label)
    + ".\n\nBodies are JSON in UTF-8. Every answer that is not a success has the same body:"
    ' `{"error": {"code", "message", "details"}}`.'
)
_KEY = "An API key, where the operator asks for one."
_SECONDS = {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}}
_METHODS = {"description": "The methods that the path takes.", "schema": {"type": "string"}}
_CHALLENGE = {"description": "How to say who calls.", "schema": {"type": "string"}}
_HEADERS: dict[ErrorCode, Json] = {
    ErrorCode.UNAUTHORIZED: {"WWW-Authenticate": _CHALLENGE},
    ErrorCode.OVERLOADED: {"Retry-After": _SECONDS},
    ErrorCode.UNAVAILABLE: {"Retry-After": _SECONDS},
    ErrorCode.METHOD_NOT_ALLOWED: {"Allow": _METHODS},
}
_SECURITY: list[Json] = [{}, {"key": []}]
_OF_EVERY_PATH = [ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.INTERNAL_ERROR]
_OF_KEYED = [ErrorCode.UNAUTHORIZED, ErrorCode.RATE_LIMITED, *_OF_EVERY_PATH]
_OF_READY = [*_OF_EVERY_PATH, ErrorCode.UNAVAILABLE]
# Nobody is there to read CLIENT_GONE, and no path of the document is not found.
_OF_POST = [code for code in ErrorCode if code not in (ErrorCode.CLIENT_GONE, ErrorCode.NOT_FOUND)]


def openapi_document(settings: Settings, requests: RequestModels) -> Json:
    """Return the OpenAPI 3.1 document of a service with these settings."""
    models = (requests.classify, requests.analyze, ClassifyResponse, AnalyzeResponse, ErrorEnvelope)
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    limits = f"A body holds at most {settings.max_body_bytes:,} bytes."
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sayso", "version": _version(), "description": f"{_DESCRIPTION}\n\n{limits}"},
        "paths": _paths(requests),
        "components": {
            "schemas": schemas["$defs"],
            "responses": _error_responses(_OF_POST),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": _KEY}},
        },
    }


def _paths(requests: RequestModels) -> Json:
    alone = {"sentences": {"sentences": SENTENCES_EXAMPLE}}
    article = {
        "text": {"title": TITLE_EXAMPLE, "text": TEXT_EXAMPLE},
        "sentences": {"title": TITLE_EXAMPLE, "sentences": SENTENCES_EXAMPLE},
    }
    return {
        "/classify": _post("Classify sentences, each read alone", requests.classify, ClassifyResponse, alone),
        "/analyze": _post("Analyze an article in context", requests.analyze, AnalyzeResponse, article),
        "/": _get("What there is", "application/json"),
        "/openapi.json": _get("This document", "application/json"),
        "/livez": _get("Whether the process lives", "text/plain"),
        "/healthz": _get("The same", "text/plain"),
        "/readyz": _get("Whether requests are taken", "text/plain", _OF_READY),
        "/metrics": _get("Figures for Prometheus", "text/plain", _OF_KEYED),
    }


def _post(summary: str, request: type[BaseModel], response: type[BaseModel], examples: Json) -> Json:
    named = {name: {"value": value} for name, value in examples.items()}
    success = {"description": response.__doc__ or "", "content": _content(response)}
    return {
        "post": {
            "summary": summary,
            "operationId": summary.split()[0].lower(),
            "security": _SECURITY,
            "requestBody": {"required": True, "content": _content(request, examples=named)},
            "responses": {"200": success, **_errors(_OF_POST)},
        }
    }


def _get(summary: str, media_type: str, errors: Sequence[ErrorCode] = _OF_EVERY_PATH) -> Json:
    success = {"description": "Success.", "content": {media_type: {"schema": {}}}}
    security = {"security": _SECURITY} if ErrorCode.UNAUTHORIZED in errors else {}
    return {"get": {"summary": summary, **security, "responses": {"200": success, **_errors(errors)}}}


def _content(model: type[BaseModel], **more: Any) -> Json:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}, **more}}


def _errors(codes: Iterable[ErrorCode]) -> Json:
    statuses = dict.fromkeys(code.status for code in codes)
    return {str(status): {"$ref": f"#/components/responses/{HTTPStatus(status).name}"} for status in statuses}


def _error_responses(codes: Iterable[ErrorCode]) -> Json:
    """Return a response for each status, which codes may share."""
    shared: dict[int, list[ErrorCode]] = {}
    for code in codes:
        shared.setdefault(code.status, []).append(code)
    return {HTTPStatus(status).name: _error(found) for status, found in shared.items()}


def _error(codes: Sequence[ErrorCode]) -> Json:
    examples = {
        code.value: {
            "value": ErrorEnvelope(error=Error(code=code, message=code.meaning)).model_dump(mode="json")
        }
        for code in codes
    }
    return {
        "description": "; or ".join(code.meaning for code in codes),
        "content": _content(ErrorEnvelope, examples=examples),
        "headers": _HEADERS.get(codes[0], {}),
    }


def _version() -> str:
    try:
        return metadata.version("sayso")
    except metadata.PackageNotFoundError:
        return "0+source"
