"""Requests and responses of the HTTP API, as pydantic models.

The request models carry the operator's limits, so ``request_models(settings)`` makes them: what they check is
what the OpenAPI document says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serving.labels import LABELS, SCORE_DIGITS, Label, Voice, label_set
from serving.predictor import Prediction
from serving.segmentation import Span
from serving.settings import Settings

# A body with a thousand bad sentences needs no thousand errors.
MAX_DETAILS = 20

_HARMLESS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")

TITLE_EXAMPLE = "Ministry calls bridge safe"
SENTENCES_EXAMPLE = [
    "The transport ministry said on Monday that the bridge is safe.",
    "“No measurement supports this,” said Ana Kolar, a structural engineer who was not involved.",
]
TEXT_EXAMPLE = " ".join(SENTENCES_EXAMPLE)
# As JSON Schema sees it, a field that is null is there, so the rule speaks of types too.
_EXACTLY_ONE: dict[str, Any] = {
    "oneOf": [
        {"required": ["text"], "properties": {"text": {"type": "string"}}},
        {"required": ["sentences"], "properties": {"sentences": {"type": "array"}}},
    ]
}


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ReadingRequest(_Request):
    """What every request may ask for besides the labels."""

    abstain_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Answers whose score is below say `uncertain: true`; without it none is so marked.",
        examples=[0.6],
    )
    labels_90: bool = Field(
        False,
        description="Whether answers also give the set of labels that holds the right one in nine of ten.",
    )
    truncate: bool = Field(
        True,
        description="Whether a sentence that is too long is read as far as it goes; otherwise it is refused.",
    )


class ClassifyRequest(ReadingRequest):
    """Sentences that are read alone, each without sight of the others."""

    sentences: list[str]


class AnalyzeRequest(ReadingRequest):
    """One article, read in context: its `text` or else its `sentences` in order, and its title if any."""

    model_config = ConfigDict(json_schema_extra=_EXACTLY_ONE)
    title: str | None = None
    text: str | None = None
    sentences: list[str] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> AnalyzeRequest:
        if (self.text is None) == (self.sentences is None):
            found = "neither" if self.text is None else "both"
            raise PydanticCustomError("exactly_one", f"expected either text or sentences, found {found}")
        return self


@dataclass(frozen=True)
class RequestModels:
    """The request models with one service's limits in them."""

    classify: type[ClassifyRequest]
    analyze: type[AnalyzeRequest]


def request_models(settings: Settings) -> RequestModels:
    """Return the request models with the settings' limits in them."""
    text, sentence = _text(settings.max_text_chars), _text(settings.max_sentence_chars)
    of_list = Field(min_length=1, max_length=settings.max_sentences)
    sentences: Any = Annotated[list[sentence], of_list]  # type: ignore[valid-type]
    title: Any = Annotated[str, Field(max_length=settings.max_sentence_chars)]
    classify = {"sentences": (sentences, Field(examples=[SENTENCES_EXAMPLE]))}
    analyze = {
        "title": (title | None, _optional("The headline.", TITLE_EXAMPLE)),
        "text": (text | None, _optional("The article; it is cut into sentences here.", TEXT_EXAMPLE)),
        "sentences": (sentences | None, _optional("The article's sentences, in order.", SENTENCES_EXAMPLE)),
    }
    return RequestModels(_narrowed(ClassifyRequest, classify), _narrowed(AnalyzeRequest, analyze))


class SentenceResult(BaseModel):
    """One sentence and who stands behind it. All scores are calibrated probabilities."""

    text: str
    start: int | None = Field(None, ge=0, description="Where it begins in a given text, in code points.")
    end: int | None = Field(
        None, ge=1, description="Where it ends, exclusive; absent where no text was given."
    )
    label: Label
    score: float = Field(ge=0, le=1, description="The label's score, the highest of the four.")
    scores: dict[Label, float] = Field(min_length=4, max_length=4)
    voice: Voice
    voice_scores: dict[Voice, float] = Field(min_length=5, max_length=5)
    doubt: bool = Field(description="Whether it casts doubt on something that somebody else stands behind.")
    doubt_score: float = Field(ge=0, le=1)
    truncated: bool = Field(description="Whether it was too long to be read to its end.")
    labels_90: list[Label] | None = Field(
        None,
        min_length=1,
        max_length=4,
        description="Labels, likeliest first, that hold the right one in nine of ten sentences; absent unless asked.",
    )
    uncertain: bool | None = Field(
        None,
        description="Whether the score is below the request's `abstain_below`; absent where none was given.",
    )


class Summary(BaseModel):
    """How an article divides over the labels."""

    sentences: int
    words: int
    counts: dict[Label, int] = Field(description="Sentences per label.")
    word_shares: dict[Label, float] = Field(description="Share of the words per label; the four sum to one.")


class ClassifyResponse(BaseModel):
    """The sentences in the order in which they were given."""

    model: str = Field(description="The version of the model that answered.")
    sentences: list[SentenceResult]


class AnalyzeResponse(ClassifyResponse):
    """The article's sentences in order, and how they divide."""

    summary: Summary


class ErrorDetail(BaseModel):
    """One thing that is wrong with a request, and where."""

    path: str = Field(description="The offending field, such as `sentences[3]`; `body` is the whole.")
    code: str
    message: str


class ErrorCode(StrEnum):
    """Why a request was not answered; each has its status."""

    status: int
    meaning: str

    def __new__(cls, value: str, status: int, meaning: str) -> Self:
        """Return a member that knows its status and what it means."""
        member = str.__new__(cls, value)
        member._value_, member.status, member.meaning = value, status, meaning
        return member

    MALFORMED_JSON = "malformed_json", 400, "the body is not JSON"
    UNAUTHORIZED = "unauthorized", 401, "expected the header Authorization: Bearer, with a valid API key"
    NOT_FOUND = "not_found", 404, "there is nothing at this path; /openapi.json lists what there is"
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "the path does not take this method"
    BODY_TIMEOUT = "body_timeout", 408, "the body took too long to arrive"
    BODY_TOO_LARGE = "body_too_large", 413, "the body is over the limit"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "expected application/json, not compressed"
    INVALID_REQUEST = "invalid_request", 422, "the JSON is not what is expected; the details say where"
    OVERLOADED = "overloaded", 429, "too many requests are waiting"
    RATE_LIMITED = "rate_limited", 429, "the key has made too many requests"
    CLIENT_GONE = "client_gone", 499, "the client went away before its answer was there"
    INTERNAL_ERROR = "internal_error", 500, "the service failed on this request; its log says why"
    UNAVAILABLE = "unavailable", 503, "the service takes no requests at present"
    DEADLINE_EXCEEDED = "deadline_exceeded", 504, "the request was not answered in time"


class Error(BaseModel):
    """What went wrong: `code` for programs, `message` for people."""

    code: ErrorCode
    message: str
    details: list[ErrorDetail] = Field(default=[], max_length=MAX_DETAILS)


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: Error


def sentence_result(
    text: str,
    prediction: Prediction,
    span: Span | None = None,
    *,
    abstain_below: float | None = None,
    labels_90: float | None = None,
) -> SentenceResult:
    """Return a sentence of a response; ``span`` is its place in the text that it was cut from.

    ``labels_90`` is the score from which on a label is in that set; without it there is none.
    """
    scores = {label: round(score, SCORE_DIGITS) for label, score in prediction.scores.items()}
    return SentenceResult(
        text=text,
        start=span.start if span else None,
        end=span.end if span else None,
        label=prediction.label,
        score=scores[prediction.label],
        scores=scores,
        voice=prediction.voice,
        voice_scores={voice: round(score, SCORE_DIGITS) for voice, score in prediction.voice_scores.items()},
        doubt=prediction.doubt,
        doubt_score=round(prediction.doubt_score, SCORE_DIGITS),
        truncated=prediction.truncated,
        labels_90=None if labels_90 is None else label_set(prediction.scores, labels_90),
        uncertain=None if abstain_below is None else scores[prediction.label] < abstain_below,
    )


def summarize(results: Sequence[SentenceResult]) -> Summary:
    """Return the counts, and the shares of words, per label."""
    counts, words = dict.fromkeys(LABELS, 0), dict.fromkeys(LABELS, 0)
    for result in results:
        counts[result.label] += 1
        words[result.label] += len(result.text.split())
    total = sum(words.values())
    shares = {label: round(n / max(total, 1), SCORE_DIGITS) for label, n in words.items()}
    return Summary(sentences=len(results), words=total, counts=counts, word_shares=shares)


def error_details(error: ValidationError, model: type[BaseModel]) -> list[ErrorDetail]:
    """Return what is wrong with a request of that model, without anything of what was in it."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_DETAILS]
    return [
        ErrorDetail(
            path=_path(one["loc"], model),
            code=one["type"],
            message=f"unknown field; known are {', '.join(model.model_fields)}"
            if one["type"] == "extra_forbidden"
            else one["msg"],
        )
        for one in found
    ]


def _text(max_chars: int) -> Any:
    # The pattern is for readers of the schema; what counts is Python's notion of white space.
    field = Field(min_length=1, max_length=max_chars, json_schema_extra={"pattern": r"\S"})
    return Annotated[str, field, AfterValidator(_not_blank)]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "expected more than white space")
    return text


def _optional(description: str, example: Any) -> Any:
    return Field(None, description=description, examples=[example])


def _narrowed(base: type[Any], definitions: dict[str, Any]) -> Any:
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **definitions)


def _path(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return a location as a path, such as sentences[3]; an odd name that is no field is not repeated."""
    if not location or (location[0] not in model.model_fields and not _HARMLESS.fullmatch(str(location[0]))):
        return "body"
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(
        "."
    )
