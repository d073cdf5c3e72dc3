"""Requests are checked where they arrive, and what is wrong is said without repeating what was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from serving.labels import LABELS, VOICES, Label, Voice
from serving.predictor import Prediction
from serving.schemas import (
    MAX_DETAILS,
    ErrorCode,
    error_details,
    request_models,
    sentence_result,
    summarize,
)
from serving.segmentation import Span
from serving.settings import Settings

MODELS = request_models(Settings(max_sentences=30, max_sentence_chars=20, max_text_chars=40))


def details(model: type[BaseModel], body: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(body if isinstance(body, str | bytes) else json.dumps(body))
    return [(detail.path, detail.code) for detail in error_details(caught.value, model)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("sentences", "missing")),
        ({"sentences": []}, ("sentences", "too_short")),
        ({"sentences": ["a"] * 31}, ("sentences", "too_long")),
        ({"sentences": "a"}, ("sentences", "list_type")),
        ({"sentences": None}, ("sentences", "list_type")),
        ({"sentences": {"0": "a"}}, ("sentences", "list_type")),
        ({"sentences": ["a", ""]}, ("sentences[1]", "string_too_short")),
        ({"sentences": ["a", " \n\t\u2003"]}, ("sentences[1]", "blank")),
        ({"sentences": ["a", "\x1c"]}, ("sentences[1]", "blank")),
        ({"sentences": ["a" * 21]}, ("sentences[0]", "string_too_long")),
        ({"sentences": [3]}, ("sentences[0]", "string_type")),
        ({"sentences": [True]}, ("sentences[0]", "string_type")),
        ({"sentences": [["a"]]}, ("sentences[0]", "string_type")),
        ([], ("body", "model_type")),
        ("3", ("body", "model_type")),
        ('{"sentences": [NaN]}', ("sentences[0]", "string_type")),
        ("", ("body", "json_invalid")),
        ("{", ("body", "json_invalid")),
        ('{"sentences": ["a"]} x', ("body", "json_invalid")),
        (b'{"sentences": ["\xff"]}', ("body", "json_invalid")),
        ('{"sentences": ["\\ud800"]}', ("body", "json_invalid")),
        ("[" * 100_000, ("body", "json_invalid")),
    ],
)
def test_a_classify_request_that_is_wrong_is_told_where(body: Any, expected: tuple[str, str]) -> None:
    assert details(MODELS.classify, body) == [expected]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("body", "exactly_one")),
        ({"title": "a"}, ("body", "exactly_one")),
        ({"text": "a", "sentences": ["a"]}, ("body", "exactly_one")),
        ({"text": None, "sentences": None}, ("body", "exactly_one")),
        ({"text": ""}, ("text", "string_too_short")),
        ({"text": " \n"}, ("text", "blank")),
        ({"text": "a" * 41}, ("text", "string_too_long")),
        ({"text": "a", "title": 3}, ("title", "string_type")),
        ({"text": "a", "titel": "b"}, ("titel", "extra_forbidden")),
        ({"text": "a", "<b>": "b"}, ("body", "extra_forbidden")),
    ],
)
def test_an_analyze_request_that_is_wrong_is_told_where(body: Any, expected: tuple[str, str]) -> None:
    assert details(MODELS.analyze, body) == [expected]


def test_every_bad_sentence_is_named_up_to_a_limit() -> None:
    found = details(MODELS.classify, {"sentences": ["a", "", "b", 3]})
    assert found == [("sentences[1]", "string_too_short"), ("sentences[3]", "string_type")]
    assert len(details(MODELS.classify, {"sentences": [""] * 30})) == MAX_DETAILS


def test_null_counts_as_absent() -> None:
    request = MODELS.analyze.model_validate_json('{"title": null, "text": "a", "sentences": null}')
    assert (request.title, request.text, request.sentences) == (None, "a", None)


@pytest.mark.parametrize("text", ["x", "🙂", "שלום", "\u202eabc", "\x00", "\u200b", "a\nb", "e\u0301"])
def test_odd_texts_are_taken_as_they_are(text: str) -> None:
    body = json.dumps({"sentences": [text]})
    assert MODELS.classify.model_validate_json(body).sentences == [text]


def test_errors_repeat_nothing_of_the_request() -> None:
    secret = "Top secret: 42"
    for body in (
        {"sentences": [{secret: 1}], secret: 2},
        {"sentences": secret},
        {"sentences": ["a", [secret]]},
    ):
        with pytest.raises(ValidationError) as caught:
            MODELS.classify.model_validate(body)
        assert secret not in repr(error_details(caught.value, MODELS.classify))


def test_the_schema_says_what_is_checked() -> None:
    schema = MODELS.classify.model_json_schema()
    sentences = schema["properties"]["sentences"]
    assert (sentences["minItems"], sentences["maxItems"]) == (1, 30)
    assert sentences["items"] == {"type": "string", "minLength": 1, "maxLength": 20, "pattern": r"\S"}
    assert schema["additionalProperties"] is False
    assert "oneOf" in MODELS.analyze.model_json_schema()


def prediction(label: Label) -> Prediction:
    scores = {each: 0.7000004 if each is label else 0.1 for each in LABELS}
    voices = dict.fromkeys(VOICES, 0.2)
    return Prediction(label, scores[label], scores, Voice.NONE, voices, False, 0.25, False)


def test_a_result_carries_its_place_only_when_it_has_one() -> None:
    without = sentence_result("a b", prediction(Label.OTHER))
    placed = sentence_result("a b", prediction(Label.OTHER), Span(3, 6))
    assert "start" not in without.model_dump(exclude_none=True)
    assert (placed.start, placed.end) == (3, 6)
    assert placed.score == placed.scores[Label.OTHER] == 0.7


def test_the_summary_counts_sentences_and_shares_out_words() -> None:
    labels = [Label.OTHER, Label.OTHER, Label.OFFICIAL_CLAIM]
    texts = ["one two", "three", "four five six seven eight nine"]
    summary = summarize([sentence_result(t, prediction(x)) for t, x in zip(texts, labels, strict=True)])
    assert (summary.sentences, summary.words) == (3, 9)
    assert summary.counts == dict.fromkeys(LABELS, 0) | {Label.OTHER: 2, Label.OFFICIAL_CLAIM: 1}
    assert summary.word_shares[Label.OTHER] == pytest.approx(1 / 3, abs=1e-6)
    assert sum(summary.word_shares.values()) == pytest.approx(1, abs=1e-5)


def test_every_error_code_has_a_status_and_a_meaning() -> None:
    assert ErrorCode("not_found").status == 404
    assert all(400 <= code.status < 600 and code.meaning for code in ErrorCode)
    assert len({code.meaning for code in ErrorCode}) == len(ErrorCode)
