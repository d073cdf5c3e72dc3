"""Tests of sentence segmentation: the offsets' contract, nasty cases, hard-wrapped text, hostile input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import segmentation
from serving.segmentation import Span, segment

# "¦" marks where a sentence ends and another begins; it is no part of the text.
NASTY = {
    "two sentences": "The army left.¦ The mayor stayed.",
    "quotation of several sentences": '"We saw nothing.¦ We heard nothing.¦ We were asleep," the guard said.',
    "the same with curly quotes": "“We saw nothing. ¦We heard nothing,” the guard said. ¦“Nobody asked us.”",
    "closing quote after the stop": 'The mayor said: "We will pay."¦ Nobody believed her.',
    "closing curly quote after the stop": "The mayor said: “We will pay.”¦ Nobody believed her.",
    "attribution in lower case": '"Where are the trucks?" she asked.¦ Nobody knew.',
    "the same after a curly quote": "“Stop!” he shouted.¦ They ran.",
    "single quotes": "'We will pay.'¦ Nobody believed her.",
    "quotation after quotation": '"We will pay."¦ "When?"',
    "curly quotation after quotation": "“We will pay.”¦ “When?”",
    "nested quotes": "\"He told me 'We are done.'\"¦ She wept.",
    "closing quote set off by a space": 'They will pay. "¦ Nobody believed her.',
    "title after a curly quote": "“Gov. Poe, please leave,” he said.¦ “Ms. Lund too.”",
    "U.S. before a name": "The U.S. Army denied the report.¦ It gave no details.",
    "U.S. at the end": "He has never been to the U.S.¦ The visa was refused twice.",
    "U.S. before a contraction": "He lives in the U.S.¦ It's warm there, not in the U.K.¦ He’s glad.",
    "U.S.-led": "The U.S.-led force and three non-U.S. units left.¦ They had lost.",
    "an acronym nobody listed": "The Q.Z.W.K. was glad.¦ Its Q.Z.W.K. Institute was not.",
    "Lt. Gen.": "Lt. Gen. Omar Hadi denied it.¦ His aide did not.",
    "Brig.-Gen.": "Brig.-Gen. Omar Hadi denied it.¦ His aide did not.",
    "rank after a comma": "A spokesman, Lt. Col. Dan Ames, denied it.¦ Cmdr. Alice Brand did not.",
    "two generals": "Maj. Gen. Ivo Sand and Brig. Gen. Ana Roe met.¦ They shook hands.",
    "politicians": "Gov. Ann Poe and Sen. Rick Doe voted no.¦ Rep. Al Roe abstained.",
    "party and state": "Sen. Rick Doe (R-Tenn.), who voted no, left.¦ Rep. Al Roe, D-Calif., stayed.",
    "forms of address": "It was Ms. Prieto who told Mrs. Lund.¦ Mr. Lund knew.",
    "scholars and saints": "Dr. Lee and Prof. Kim doubt it.¦ St. Mary's Hospital agreed.",
    "initials": "The prize went to J. K. Rowling.¦ She was absent.",
    "initials without spaces": "The book by J.R.R. Tolkien was sold.¦ George W. Bush bought it.",
    "a letter that is no initial": "They met at Gate C.¦ The match was over.",
    "a post on X": "“It is a lie,” he wrote on X.¦ Lund denied it on X.¦ “Never,” she wrote.",
    "Jr.": "Martin Luther King Jr. spoke there.¦ It was hot.",
    "No. 3": "The No. 3 reactor was shut down.¦ The No. 4 reactor was not.",
    "page and section": "See p. 12 of the report.¦ Sec. 230 of the act is quoted on pp. 3-5.",
    "no as a word": "The answer was no.¦ Lund left.",
    "dates": "The riot of Jan. 6 was planned.¦ The hearing on Feb. 12 will tell.",
    "figures": "It cost $1.5 million.¦ It saved 3.5% of fuel.¦ It rose by 2.",
    "per cent": "Turnout fell to 40 per cent.¦ Analysts had expected more.",
    "words that legal texts abbreviate": "She quit last month.¦ Lund hit a wall.¦ Poe fell ill.¦ Roe wept.",
    "companies": "Acme Inc. bought Foo & Co. Ltd. for cash.¦ Shares rose.",
    "ellipsis within": "We waited ... and nobody came.¦ Then it rained.",
    "ellipsis at the end": "We waited...¦ Nobody came.",
    "ellipsis as one character": "We waited…¦ Nobody came.",
    "several marks": "They did what?!¦ The union was furious!!¦ Why?",
    "a.m. and p.m. within": "It began at 9 a.m. on Monday.¦ It ended at 5 p.m. Tuesday.¦ It is 6 p.m. ET.",
    "hours with a long zone": "The law passed at 6 p.m. Pacific time.¦ It was 9 p.m. Eastern.",
    "p.m. at the end": "The polls closed at 8 p.m.¦ Counting began at once.",
    "dateline": "KABUL, Aug. 3 (Reuters) - The army denied it.¦ It gave no details.",
    "dateline with a state": "SALEM, Ore. (AP) — Police shot a man.¦ He lived in Salem, Ore.¦ Police left.",
    "sentence in parentheses": "The vote passed. ¦(Two members were absent.) ¦The mayor signed it.",
    "abbreviations in parentheses": "Some (e.g. Iran) objected, i.e. they voted no.¦ It passed.",
    "web address": "Read https://example.org/a.b/c?d=e.f-g for more.¦ It is free.",
    "domain at the end": "It was first seen on example.com.¦ The site is down.",
    "e-mail address": "Write to j.doe@example.co.uk for more.¦ It is free.",
    "ages": "Ann Poe, 43, was hurt.¦ Her son, 7, was not.",
    "years at the end": "It was founded in 1998.¦ It closed in 2020.",
    "a number begins": "They lost.¦ 43 people were hurt.",
    "a small letter begins": "He sold the shares.¦ iPhone sales had slowed.",
    "court case": "The case is Roe v. Wade.¦ It was Iran vs. Iraq again.",
    "emoji": "We won 🎉!¦ Thank you 🙏🏽.¦ See you 👨‍👩‍👧.",
    "Arabic": "قال الوزير إنه لا يعلم.¦ هل هذا صحيح؟¦ لم يجب أحد.",
    "Hebrew": "השר אמר שלא ידע.¦ איש לא ענה.",
    "white space lost": 'It is over, he said.¦The crowd left".¦It was too late.¦“So what?”¦Nobody knew.',
    "white space lost after an abbreviation": "Mrs.Lund met J.Smith in the U.S.Capitol.",
    "heading in capitals": "WHAT HAPPENS NEXT¦\nThe court will rule.¦ It may take weeks.",
    "heading and blank line": "What happens next¦\n\nThe court will rule.¦ It may take weeks.",
    "bullets": "They ask for:¦\n- more pay¦\n- less work¦\n• a day off",
    "numbered list": "They ask for:¦\n1. More pay.¦\n2. Less work.",
    "paragraphs without a stop": "The first paragraph has no stop¦\nThe second has one.",
    "kinds of line breaks": "First line¦\r\nSecond line¦\r\n\r\nThird¦\rFourth¦\u2028Fifth¦\x0cSixth",
}

HARD_WRAPPED = """WHAT HAPPENS NEXT¦
The court will rule on the matter before the end of the week,
lawyers said on Monday after a hearing that lasted for four
hours.¦ It may also adjourn.¦ The case was brought by
Lund and two others, who have asked for damages.¦

They also ask for the following measures, and for all of them
at once, which the government has refused so far, although it
did promise that it would think about several of them:¦
- an apology¦
- a new law¦"""

# Characters that meet the rules often.
MARKS = "aXé U.S.Mr.No. 3-:?!…\"'“”‘’()\n\r\x0b\x1c\x85\u2028\u200b؟🎉"

HOSTILE = {
    "no stop": "word ",
    "stops": ".",
    "exclamation marks": "!",
    "closed exclamations": '!")',
    "spaced stops": ". ",
    "letters": "a",
    "initials": "a. ",
    "dotted": "a.b",
    "hyphenated": "a-b",
    "lost white space": "said.The",
    "list": "1. ",
    "line breaks": "\n",
    "hard-wrapped": "and on the next day they went on with the work\n",
    "lines": "a\n",
    "white space": " \t\u00a0",
    "opening quotes": "“",
    "apostrophes": "a'",
    "ellipses": "… ",
}


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in segment(text)]


def check(text: str) -> None:
    """Assert what ``segment`` promises about any text."""
    spans = segment(text)
    assert all(text[s.start : s.end].strip() == text[s.start : s.end] != "" for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    edges = [0, *(edge for s in spans for edge in (s.start, s.end)), len(text)]
    assert not any(text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("marked", NASTY.values(), ids=NASTY)
def test_a_nasty_text_splits_where_a_reader_would(marked: str) -> None:
    assert sentences(marked.replace("¦", "")) == [part.strip() for part in marked.split("¦")]


def test_hard_wrapped_lines_are_joined_but_not_headings_bullets_or_paragraphs() -> None:
    expected = [part.strip() for part in HARD_WRAPPED.split("¦") if part.strip()]
    assert sentences(HARD_WRAPPED.replace("¦", "")) == expected
    assert "week,\nlawyers" in expected[1]


def test_lines_in_lower_case_that_are_short_or_long_are_not_joined() -> None:
    assert sentences("bread\nmilk\neggs") == ["bread", "milk", "eggs"]
    paragraph = "iPhone sales " + "rose and " * 12 + "fell"
    assert sentences(f"{paragraph}\n{paragraph}") == [paragraph, paragraph]


def test_lines_with_capitals_are_not_joined() -> None:
    captions = ["Ann Poe in front of the town hall on Monday", "The town hall after the fire of last month"]
    assert sentences("\n".join(captions)) == captions


@pytest.mark.parametrize("text", ["", " ", "\n", " \t\r\n\u00a0\u2003\x1c ", "\n" * 1000])
def test_blank_text_has_no_sentences(text: str) -> None:
    assert segment(text) == []


@pytest.mark.parametrize("text", [".", "a", "“", "🎉", "\x00", "\ud800", "\u200b", "…", "?!", "م"])
def test_one_character_is_a_sentence(text: str) -> None:
    assert segment(text) == [Span(0, len(text))]


def test_control_characters_survive_and_offsets_count_code_points() -> None:
    text = "  \x07He left\x00 🎉. \u202eShe stayed.\x1b  "
    assert sentences(text) == ["\x07He left\x00 🎉.", "\u202eShe stayed.\x1b"]
    assert segment(text)[0] == Span(2, 14)


@settings(deadline=None)
@given(st.text(st.sampled_from(MARKS), max_size=200))
def test_spans_of_marks_are_ordered_trimmed_and_leave_only_white_space(text: str) -> None:
    check(text)


@settings(deadline=None)
@given(st.text())
def test_spans_of_any_text_are_ordered_trimmed_and_leave_only_white_space(text: str) -> None:
    check(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from([marked.replace("¦", "") for marked in NASTY.values()]), max_size=6))
def test_paragraphs_do_not_touch_each_other(texts: list[str]) -> None:
    assert sentences("\n\n".join(texts)) == [sentence for text in texts for sentence in sentences(text)]


@pytest.mark.parametrize("marked", NASTY.values(), ids=NASTY)
def test_a_sentence_alone_stays_one_sentence(marked: str) -> None:
    assert all(segment(part.strip()) == [Span(0, len(part.strip()))] for part in marked.split("¦"))


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_keeps_the_promises(unit: str) -> None:
    check((unit * 30_000)[:30_000])


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_nupunkt_is_given_every_character_once_and_no_long_word_with_marks(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[str] = []

    class Recorder:
        parameters = segmentation._tokenizer().parameters

        def iter_spans(self, part: str, *, paragraph_breaks: bool) -> list[tuple[int, int]]:
            parts.append(part)
            return []

    monkeypatch.setattr(segmentation, "_tokenizer", Recorder)
    segment(unit * 20_000)
    assert sum(map(len, parts)) <= len(unit * 20_000)
    words = [word for part in parts for word in part.split()]
    assert max((len(word.lstrip("(")) for word in words), default=0) < 80
    assert not any("\n" in part for part in parts)


def test_a_megabyte_without_a_stop_and_a_sentence_of_5000_words_are_one_sentence_each() -> None:
    long = " ".join(["word"] * 5000) + "."
    assert sentences(f"He left. {long} She stayed.") == ["He left.", long, "She stayed."]
    megabyte = "word " * 200_000
    assert segment(megabyte) == [Span(0, len(megabyte) - 1)]


def test_threads_agree() -> None:
    text = " ".join(marked.replace("¦", "") for marked in NASTY.values())
    texts = [text[i:] for i in range(0, 400, 4)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(segment, texts)) == [segment(t) for t in texts]
