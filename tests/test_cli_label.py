"""``sayso label`` from the outside: what it reads, writes and says, and the exit code that it ends with."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import serving.predictor
from serving.cli import main
from serving.errors import SaysoError
from serving.labels import VOICES, Label
from serving.predictor import Article, Prediction

ROOT = Path(__file__).parent.parent
TEXT = """Cranes pass inspection

The harbour ministry said every crane is safe. The union counted two that are not.

An engineer doubts the ministry's figures.
"""
LABEL_COLUMNS = ["label", "score", "scores", "voice", "doubt", "doubt_score", "truncated"]


class FakePredictor:
    """Labels a sentence by a word in it; what it was asked to read is kept."""

    manifest = SimpleNamespace(model_version="fake-1")
    words = (("ministry said", Label.OFFICIAL_CLAIM), ("counted", Label.THIRD_PARTY_ASSESSMENT))
    read: list[Article] = []  # noqa: RUF012
    loaded: list[Path | None] = []  # noqa: RUF012

    @classmethod
    def load(cls, directory: Path | None = None) -> FakePredictor:
        cls.loaded.append(directory)
        return cls()

    def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        self.read.extend(articles)
        return [[self._predict(text) for text in article.sentences] for article in articles]

    def _predict(self, text: str) -> Prediction:
        if "explode" in text:
            raise SaysoError("the model exploded")
        if "interrupt" in text:
            raise KeyboardInterrupt
        label = next((label for word, label in self.words if word in text), Label.OTHER)
        label = Label.EXPERT_SKEPTICISM if "doubts" in text else label
        scores = {x: 0.7 if x is label else 0.1 for x in Label}
        return Prediction(
            label, 0.7, scores, VOICES[0], dict.fromkeys(VOICES, 0.2), False, 0.25, len(text) > 3000
        )


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePredictor]:
    monkeypatch.setattr(serving.predictor, "Predictor", FakePredictor)
    monkeypatch.setattr(FakePredictor, "read", [])
    monkeypatch.setattr(FakePredictor, "loaded", [])
    return FakePredictor


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TEXT, encoding="utf-8")
    rows = [
        {"article_id": "w1", "text": text, "beat": "harbour"}
        for text in ("One ministry said so.", "He doubts it.")
    ]
    Path("a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"text": "Alone."}]))
    Path("bad.jsonl").write_text('{"text": "Good."}\n{oops\n{"text": 3}\n')
    return tmp_path


def _label(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["label", *arguments], input=stdin)


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- what it reads and writes ----------------------------------------------------------------------------


def test_a_text_is_read_as_one_article(folder: Path, fake: type[FakePredictor]) -> None:
    result = _label("a.txt")
    assert result.exit_code == 0
    rows = _rows(result.stdout)
    assert [row["label"] for row in rows] == ["official_claim", "third_party_assessment", "expert_skepticism"]
    assert list(rows[0]) == [
        "article_id",
        "position",
        "paragraph",
        "title",
        "text",
        "start",
        "end",
        *LABEL_COLUMNS,
    ]
    assert all(TEXT[row["start"] : row["end"]] == row["text"] for row in rows)
    assert [article.title for article in fake.read] == ["Cranes pass inspection"]


def test_standard_input_is_a_text_unless_told_otherwise(folder: Path) -> None:
    assert {row["article_id"] for row in _rows(_label("-", stdin=TEXT).stdout)} == {"stdin"}
    rows = _rows(_label("-", "--input-format", "jsonl", stdin='{"text": "One. Two."}\n').stdout)
    assert [row["text"] for row in rows] == ["One. Two."]


def test_rows_of_one_article_are_read_together(folder: Path, fake: type[FakePredictor]) -> None:
    rows = _rows(_label("a.jsonl").stdout)
    assert [len(article.sentences) for article in fake.read] == [2, 1]
    assert list(rows[0]) == ["article_id", "text", "beat", *LABEL_COLUMNS]
    assert [row["label"] for row in rows] == ["official_claim", "expert_skepticism", "other"]


def test_rows_with_whole_articles_are_split(folder: Path) -> None:
    Path("c.jsonl").write_text(json.dumps({"text": TEXT, "title": "Cranes", "source": "wire"}))
    rows = _rows(_label("c.jsonl", "--unit", "article").stdout)
    assert [row["source"] for row in rows] == ["wire"] * len(rows)
    assert all(TEXT[row["start"] : row["end"]] == row["text"] for row in rows)


def test_rows_that_look_like_articles_bring_a_note(folder: Path) -> None:
    Path("c.jsonl").write_text(f"{json.dumps({'text': 'It is safe. ' * 9})}\n" * 3)
    assert "note: most rows of c.jsonl hold several sentences" in _label("c.jsonl").stderr
    assert not _label("c.jsonl", "--unit", "sentence").stderr
    assert not _label("a.jsonl").stderr


def test_the_title_may_be_given(folder: Path, fake: type[FakePredictor]) -> None:
    assert _label("a.txt", "--title", "Harbour").exit_code == 0
    assert fake.read[0].title == "Harbour"
    assert fake.read[0].sentences[0] == "Cranes pass inspection"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "html", "txt"])
def test_the_suffix_of_the_output_tells_its_format(folder: Path, suffix: str) -> None:
    result = _label("a.txt", "a.jsonl", "--output", f"out.{suffix}")
    assert (result.exit_code, result.output) == (0, "")
    content = Path(f"out.{suffix}").read_bytes()
    starts = {"jsonl": b'{"article_id"', "csv": b"article_id,", "parquet": b"PAR1", "txt": b"Cranes pass"}
    assert content.lstrip().startswith(starts.get(suffix, b"<!doctype html>"))


def test_a_table_has_the_columns_of_all_inputs(folder: Path) -> None:
    assert _label("a.txt", "a.jsonl", "-o", "out.csv").exit_code == 0
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [row["beat"] for row in rows] == ["", "", "", "harbour", "harbour", ""]
    assert [row["start"] != "" for row in rows] == [True] * 3 + [False] * 3


def test_the_format_goes_before_the_suffix(folder: Path) -> None:
    assert _label("a.txt", "--output", "out.csv", "--format", "jsonl").exit_code == 0
    assert len(_rows(Path("out.csv").read_text())) == 3


def test_formats_hold_the_same_answers(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("jsonl", "csv", "parquet"):
        assert _label("a.jsonl", "-o", f"out.{suffix}").exit_code == 0
    jsonl = [row["label"] for row in _rows(Path("out.jsonl").read_text())]
    with Path("out.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == jsonl
    assert parquet.read_table("out.parquet").column("label").to_pylist() == jsonl


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_output_can_be_labelled_again(folder: Path, suffix: str) -> None:
    first, second = f"one.{suffix}", "two.jsonl"
    assert _label("a.jsonl", "-o", first).exit_code == 0
    assert _label(first, "-o", second).exit_code == 0
    rows = _rows(Path(second).read_text())
    assert [row["input_label"] for row in rows] == [row["label"] for row in rows]


def test_documents_are_labelled_in_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    predict = FakePredictor.predict

    def counting(self: FakePredictor, articles: Sequence[Article]) -> list[list[Prediction]]:
        sizes.append(len(articles))
        return predict(self, articles)

    monkeypatch.setattr(FakePredictor, "predict", counting)
    Path("many.jsonl").write_text('{"text": "It is safe."}\n' * 1000)
    assert len(_rows(_label("many.jsonl").stdout)) == 1000
    assert max(sizes) <= 256


def test_the_model_comes_from_the_option_or_the_environment(
    folder: Path, fake: type[FakePredictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAYSO_MODEL", raising=False)
    _label("a.txt")
    monkeypatch.setenv("SAYSO_MODEL", "from-env")
    _label("a.txt")
    _label("a.txt", "--model", "from-option")
    assert fake.loaded == [None, Path("from-env"), Path("from-option")]


# --- bad rows, bad files, bad options --------------------------------------------------------------------


def test_bad_rows_are_reported_and_the_rest_is_written(folder: Path) -> None:
    result = _label("bad.jsonl", "a.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "bad.jsonl:2: malformed JSON (Expecting property name enclosed in double quotes at column 2); "
        "expected an object a line",
        "bad.jsonl:3: 'text' is 3; expected a string",
        "2 rows were skipped; the rest is labelled",
    ]
    assert len(_rows(Path("out.jsonl").read_text())) == 4


def test_a_file_with_no_good_row_writes_nothing(folder: Path) -> None:
    Path("worse.jsonl").write_text("{oops\n")
    Path("out.jsonl").write_text("old")
    result = _label("worse.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 2
    assert "worse.jsonl:1: malformed JSON" in result.stderr
    assert "error: no row could be labelled; nothing was written" in result.stderr
    assert Path("out.jsonl").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.txt"], "error: none.txt: no such file; check the path\n"),
        (
            ["none.txt", "nor.csv"],
            "error: none.txt: no such file; check the path\nerror: nor.csv: no such file",
        ),
        (["."], "error: .: is a folder; name the files in it, for instance *.txt"),
        (["a.json"], "error: a.json: unknown file type '.json'; expected .txt"),
        (["-", "-"], "error: -: given more than once"),
        (["a.txt", "--title", "T", "a.jsonl"], "error: --title: goes with one text"),
        (["a.jsonl", "--title", "T"], "error: --title: goes with one text"),
        (["a.txt", "-o", "out.doc"], "error: out.doc: unknown file type; expected .jsonl"),
        (["a.txt", "-o", "no/out.csv"], "error: no/out.csv: its folder does not exist; create it first"),
        (["a.txt", "-o", ".", "-f", "csv"], "error: .: is a folder; name a file in it"),
        (["a.txt", "-o", "a.txt"], "error: a.txt: is an input too; write to another file"),
        (["a.txt", "-o", "link.txt"], "error: link.txt: is an input too; write to another file"),
        (["empty.csv"], "error: empty.csv: the file is empty; expected at least one sentence"),
        (
            ["latin.txt"],
            "error: latin.txt: line 1 is not UTF-8 (byte 0xe9 at byte 4); save the file as UTF-8",
        ),
    ],
)
def test_what_cannot_be_used_is_named_before_the_work_starts(
    folder: Path, fake: type[FakePredictor], arguments: list[str], problem: str
) -> None:
    Path("a.json").write_text("[]")
    Path("empty.csv").touch()
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("link.txt").symlink_to("a.txt")
    result = _label(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(problem)
    assert not fake.loaded
    assert Path("a.txt").read_text() == TEXT


@pytest.mark.parametrize("arguments", [["a.parquet"], ["a.txt", "-o", "out.parquet"]])
def test_without_pyarrow_the_error_has_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    Path("a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = _label(*arguments)
    assert result.exit_code == 2
    assert (
        "a Parquet file needs pyarrow, which is not installed: pip install 'sayso[parquet]'" in result.stderr
    )


def test_a_full_disk_is_a_clear_error(folder: Path) -> None:
    result = _label("a.txt", "-f", "jsonl", "-o", "/dev/full")
    assert result.exit_code == 2
    assert result.stderr == "error: /dev/full: No space left on device; nothing was changed\n"


# --- failures midway -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "html", "txt"])
@pytest.mark.parametrize(("word", "code"), [("explode", 2), ("interrupt", 130)])
def test_a_failure_midway_leaves_the_old_output(folder: Path, suffix: str, word: str, code: int) -> None:
    Path("many.jsonl").write_text('{"text": "It is safe."}\n' * 600 + f'{{"text": "{word}"}}\n')
    Path(f"out.{suffix}").write_text("old")
    before = sorted(os.listdir())
    result = _label("many.jsonl", "-o", f"out.{suffix}")
    assert result.exit_code == code
    assert len(result.stderr.splitlines()) == 1
    assert Path(f"out.{suffix}").read_text() == "old"
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.csv"], "stopped: out.csv was not written\n"),
        (["-o", "old.csv"], "stopped: old.csv is as it was before\n"),
        ([], "stopped: the output is not complete\n"),
    ],
)
def test_ctrl_c_says_in_one_line_what_there_is(folder: Path, arguments: list[str], message: str) -> None:
    Path("stop.txt").write_text("Please interrupt me.")
    Path("old.csv").write_text("old")
    result = _label("stop.txt", *arguments)
    assert (result.exit_code, result.stderr) == (130, message)


# --- nasty texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("x", 1),
        ("😀", 1),
        ("قالت الوزارة إن الميناء آمن. הנמל בטוח.", 2),
        ("\x00\x1b[31mred\x07.", 1),
        ("word " * 5000, 1),
    ],
    ids=["one character", "emoji", "right to left", "control characters", "5,000 words"],
)
def test_nasty_texts_are_labelled(folder: Path, text: str, sentences: int) -> None:
    Path("nasty.txt").write_text(text, encoding="utf-8")
    results = {name: _label("nasty.txt", "--format", name) for name in ("jsonl", "csv", "html", "table")}
    assert [result.exit_code for result in results.values()] == [0, 0, 0, 0]
    rows = _rows(results["jsonl"].stdout)
    assert len(rows) == sentences
    assert rows[0]["truncated"] is (len(text) == 25_000)
    assert not any("\x1b" in results[name].stdout for name in ("html", "table"))


def test_a_megabyte_of_text_is_labelled(folder: Path) -> None:
    Path("long.txt").write_text("The ministry said it is safe. " * 33_000)
    assert len(_rows(_label("long.txt").stdout)) == 33_000


@pytest.mark.parametrize("text", ["", " \n\t "], ids=["empty", "blank"])
def test_a_text_with_nothing_in_it_is_a_clear_error(folder: Path, text: str) -> None:
    result = _label("-", stdin=text)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: stdin: the file ")


# --- real processes, the embedded model ------------------------------------------------------------------


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serving.cli", "label", *arguments]


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAYSO_")}
    return environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"}


def _run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=120,
        check=False,
    )


def test_a_pipe_gets_jsonl_without_colour(folder: Path) -> None:
    done = _run("-", stdin=TEXT)
    assert (done.returncode, done.stderr) == (0, "")
    rows = _rows(done.stdout)
    assert len(rows) == 3
    assert all(sum(row["scores"].values()) == pytest.approx(1, abs=1e-4) for row in rows)
    assert all(row["label"] == max(row["scores"], key=row["scores"].get) for row in rows)


def test_a_terminal_gets_a_coloured_table(folder: Path) -> None:
    reader, terminal = pty.openpty()
    process = subprocess.Popen(_command("a.txt"), stdout=terminal, stderr=terminal, env=_environment())
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(reader, 65536):
            shown += part
    except OSError:  # Linux says so when the last writer has closed the terminal
        pass
    os.close(reader)
    assert process.wait(timeout=60) == 0
    assert b"\x1b[" in shown
    assert b"Cranes pass inspection" in shown
    assert b"3 sentences in 1 article" in shown


@pytest.mark.parametrize(
    ("stop", "code", "suffix"),
    [(signal.SIGINT, 130, "jsonl"), (signal.SIGINT, 130, "parquet"), (signal.SIGTERM, 143, "html")],
)
def test_a_stopped_process_leaves_no_part_of_a_file(folder: Path, stop: int, code: int, suffix: str) -> None:
    Path("long.jsonl").write_text(
        '{"text": "The harbour ministry said on Tuesday that every crane is safe."}\n' * 80_000
    )
    out = Path(f"out.{suffix}")
    out.write_text("old")
    before = sorted(os.listdir())
    process = subprocess.Popen(
        _command("long.jsonl", "-o", str(out)),
        stderr=subprocess.PIPE,
        env=_environment(),
        text=True,
        # A shell that starts the suite in the background has switched SIGINT off for it and its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _wait_for(lambda: len(os.listdir()) > len(before))
    time.sleep(0.5)
    process.send_signal(stop)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr == (f"stopped: {out} is as it was before\n" if code == 130 else "")
    assert out.read_text() == "old"
    assert sorted(os.listdir()) == before


def _wait_for(happened: Any) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    Path("long.jsonl").write_text('{"text": "Every crane is safe."}\n' * 20_000)
    process = subprocess.Popen(
        _command("long.jsonl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_broken_model_is_a_clear_error(folder: Path) -> None:
    done = _run("a.txt", "--model", "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere: not a model directory")


# --- help ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["label", "--help"], ["serve", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = [
        "numpy",
        "onnxruntime",
        "tokenizers",
        "bentoml",
        "rich",
        "jinja2",
        "pyarrow",
        "torch",
        "training",
    ]
    code = "import sys; from serving.cli import main; main(sys.argv[1:], standalone_mode=False); "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=_environment(),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_documents_exit_codes_and_examples() -> None:
    shown = CliRunner().invoke(main, ["label", "--help"]).output
    assert "Exit codes:\n    0    everything was labelled\n    1 " in shown
    assert "130  stopped with Ctrl-C" in shown
    assert "sayso label article.txt --output report.html" in shown


def test_a_wrong_setting_of_serve_is_a_clear_error() -> None:
    result = CliRunner().invoke(main, ["serve", "--port", "x"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: SAYSO_PORT: found 'x', expected a whole number")


def test_serve_executes_the_server_with_its_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[Any] = []
    monkeypatch.setenv("BENTOML_HOME", str(folder))
    monkeypatch.setattr("os.execve", lambda *arguments: executed.append(arguments))
    monkeypatch.setattr("serving.artifact.read_manifest", lambda directory: None)
    result = CliRunner().invoke(
        main, ["serve", "--host", "0.0.0.0", "--insecure", "--workers", "2", "--model", "mine"]
    )
    assert result.exit_code == 0, result.output
    [(program, argv, environ)] = executed
    assert program == sys.executable
    assert "serving.service:Sayso" in argv
    assert "--host=0.0.0.0" in argv
    assert environ["SAYSO_WORKERS"] == "2"
    assert environ["SAYSO_INSECURE"] == "True"
    assert environ["SAYSO_MODEL"] == str(Path("mine").absolute())
    assert environ["BENTOML_DO_NOT_TRACK"] == "True"
