"""The command ``sayso``: ``label`` reads files offline, ``serve`` starts the HTTP service.

What a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from serving.errors import SaysoError

if TYPE_CHECKING:
    from rich.progress import Progress

    from serving.documents import Document, Source, Survey
    from serving.predictor import Predictor
    from serving.rendering import Labelled, Tally, Writer

_CHUNK_SENTENCES = 256
_CHUNK_CHARS = 1_000_000

_LABEL_EXIT_CODES = """\b
Exit codes:
  0    everything was labelled
  1    some rows could not be used; they were reported, the rest was written
  2    nothing was written: a file, an option or the model cannot be used
  130  stopped with Ctrl-C; no file was written or changed
"""
_SERVE_EXIT_CODES = """\b
Exit codes:
  0    stopped by Ctrl-C or SIGTERM
  2    an option, a variable or the model cannot be used
"""


class _Commands(click.Group):
    """Turns expected failures into one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SaysoError as error:
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            # The reader of the output went away (`| head`): end as other programs do then, without a word.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the interpreter flushes it at its end
            ctx.exit(128 + 13)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"sayso {version('sayso')}")
    except PackageNotFoundError:
        click.echo("sayso, not installed as a package")
    ctx.exit()


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version."
)
def main() -> None:
    """Label every sentence of a news article by who stands behind it.

    \b
    official claim          what a party to the matter says in its own cause
    third-party assessment  what someone outside the matter reports or finds
    expert skepticism       an expert's doubt about a claim or an official line
    other                   narration, acts, private persons, background

    \b
    Examples:
      sayso label article.txt
      sayso label archive.jsonl --output labelled.parquet
      sayso serve
    """


# --- sayso label -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelOptions:
    """The options of ``sayso label``."""

    input_format: str | None
    unit: str | None
    title: str | None
    output: Path | None
    output_format: str | None
    model: Path | None


@main.command(epilog=_LABEL_EXIT_CODES)
@click.argument("files", nargs=-1, required=True, metavar="FILE... | -")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
    help="Write to this file, which is put in place when all is done, never before.",
)  # fmt: skip
@click.option(
    "--format", "-f", "output_format", type=click.Choice(["table", "jsonl", "csv", "parquet", "html"]),
    help="The output's format. Default: what --output's suffix tells; table on a terminal, jsonl in a pipe.",
)  # fmt: skip
@click.option(
    "--input-format", type=click.Choice(["txt", "jsonl", "csv", "parquet"]),
    help="The inputs' format. Default: by their suffixes, txt for -.",
)  # fmt: skip
@click.option(
    "--unit", type=click.Choice(["sentence", "article"]),
    help="What 'text' holds in a row of a JSONL, CSV or Parquet file: one sentence (default), or a whole "
    "article, which is then split into sentences.",
)  # fmt: skip
@click.option(
    "--title",
    help="The title of the one text that is read; '' for none. Default: a text's first line, if a blank "
    "line follows it and no full stop ends it.",
)  # fmt: skip
@click.option(
    "--model", type=click.Path(path_type=Path), envvar="SAYSO_MODEL", show_envvar=True, metavar="DIR",
    help="A model directory that `sayso-train fit` wrote. Default: the model that comes with Sayso.",
)  # fmt: skip
@click.pass_context
def label(ctx: click.Context, /, files: Sequence[str], **options: Any) -> None:
    """Label the sentences of files.

    A .txt FILE, or - for standard input, is one article: it is split into sentences, and each is read in
    the sight of its neighbours. A .jsonl, .csv or .parquet FILE has a column 'text' with one sentence a row.
    Rows that share an 'article_id' are read together, in the order of 'position' if it is there, with the
    article's 'title'; a row without 'article_id' is read alone. With --unit article a row's 'text' is a whole
    article.

    The output has one row a sentence: the input's columns, then label, score, scores (in CSV and Parquet
    score_LABEL), voice, doubt, doubt_score, and truncated (true where a sentence was too long to be read
    whole). Sentences of a longer text also have article_id, position, paragraph, title, and their start and
    end in it, counted in characters. A column of the input with one of these names is kept as input_NAME.

    \b
    Examples:
      sayso label article.txt
      sayso label article.txt --output report.html
      sayso label sentences.csv --output labelled.csv
      sayso label archive.jsonl --unit article --format parquet -o labelled.parquet
      curl -s https://example.org/a.txt | sayso label - | jq -r '[.label, .text] | @tsv'
    """
    settings = LabelOptions(**options)
    try:
        with tempfile.TemporaryDirectory(prefix="sayso-") as spool, _ending_cleanly():
            skipped = _label(_sources(files, settings, Path(spool)), settings)
    except KeyboardInterrupt:
        click.echo(f"stopped: {_state_of(settings.output)}", err=True)
        ctx.exit(130)
    if skipped:
        rows = "1 row was" if skipped == 1 else f"{skipped:,} rows were"
        click.echo(f"{rows} skipped; the rest is labelled", err=True)
        ctx.exit(1)


def _state_of(output: Path | None) -> str:
    if output is None:
        return "the output is not complete"
    return f"{output} is as it was before" if output.exists() else f"{output} was not written"


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Make SIGTERM end the block like an exception, so that temporary files are removed."""

    def end(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _sources(files: Sequence[str], options: LabelOptions, spool: Path) -> list[Source]:
    """Return the inputs; raise SaysoError that names every one that cannot be used."""
    if files.count("-") > 1:
        raise SaysoError("-: given more than once; standard input can be read once")
    sources, problems = [], []
    for name in files:
        try:
            sources.append(_source(name, options, spool))
        except SaysoError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise SaysoError("\n".join(problems))
    if options.title is not None and [source.file_format for source in sources] != ["txt"]:
        raise SaysoError("--title: goes with one text; in other files the column 'title' has the titles")
    return sources


def _source(name: str, options: LabelOptions, spool: Path) -> Source:
    from serving.documents import Source, format_of

    path = Path(name)
    if name == "-":
        path = _spooled_stdin(spool)
    elif path.is_dir():
        raise SaysoError(f"is a folder; name the files in it, for instance {path / '*.txt'}")
    elif not path.exists():
        raise SaysoError("no such file; check the path")
    file_format = options.input_format or ("txt" if name == "-" else format_of(name))
    shown = "stdin" if name == "-" else click.format_filename(name)
    return Source(path, shown, file_format, by_article=options.unit == "article", title=options.title)


def _spooled_stdin(spool: Path) -> Path:
    """Return a file with all that standard input holds, since an input is read twice."""
    import shutil

    stdin = sys.stdin.buffer
    if stdin.isatty():
        click.echo("reading from the keyboard; Ctrl-D on a line of its own ends the text", err=True)
    path = spool / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(stdin, file)
    return path


def _label(sources: Sequence[Source], options: LabelOptions) -> int:
    """Label the sources, and return how many rows were skipped."""
    from serving.documents import survey_all

    file_format = _output_format(options)
    if options.output is not None:
        _check_output(options.output, sources)
    if file_format == "parquet":
        from serving.records import require_pyarrow

        require_pyarrow("writing a Parquet file")
    surveys = survey_all(sources)
    if options.unit is None:
        _hint_at_articles(surveys)
    try:
        return _Job(surveys, options, file_format).run()
    except BrokenPipeError:
        raise
    except OSError as error:
        place = options.output or error.filename or "the output"
        raise SaysoError(f"{place}: {error.strerror or error}; nothing was changed") from None


def _output_format(options: LabelOptions) -> str:
    from serving.rendering import SUFFIXES

    terminal = options.output is None and sys.stdout.isatty()
    if options.output_format == "parquet" and terminal:
        raise SaysoError("--format parquet: a terminal cannot show it; add --output FILE")
    if options.output_format:
        return options.output_format
    if options.output is None:
        return "table" if terminal else "jsonl"
    if (suffix := options.output.suffix.lower()) not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise SaysoError(f"{options.output}: unknown file type; expected {known}, or add --format")
    return SUFFIXES[suffix]


def _check_output(output: Path, sources: Iterable[Source]) -> None:
    """Raise SaysoError where the output cannot be put, or would replace an input."""
    if output.is_dir():
        raise SaysoError(f"{output}: is a folder; name a file in it")
    if not output.resolve().parent.is_dir():
        raise SaysoError(f"{output}: its folder does not exist; create it first")
    for source in sources:
        if output.exists() and source.path.samefile(output):
            raise SaysoError(f"{output}: is an input too; write to another file")


def _hint_at_articles(surveys: Iterable[Survey]) -> None:
    for found in surveys:
        if found.long_texts:
            click.echo(
                f"note: most rows of {found.source.name} hold several sentences, and each is read as one; "
                "--unit article splits them, --unit sentence ends this note",
                err=True,
            )


class _Job:
    """One run over the surveyed sources into one output."""

    def __init__(self, surveys: Sequence[Survey], options: LabelOptions, file_format: str) -> None:
        self._surveys = surveys
        self._options = options
        self._format = file_format
        self._skipped = 0

    def run(self) -> int:
        """Label everything, and return how many rows were skipped."""
        from serving.predictor import Predictor
        from serving.rendering import TableWriter

        with self._stream() as stream:
            predictor = Predictor.load(self._options.model)
            console = self._terminal()
            writer = TableWriter(console) if console else self._file_writer(stream, predictor)
            with closing(writer), self._progress_bar(console) as progress:
                tally = self._write_all(predictor, writer, progress)
        if self._options.output and sys.stderr.isatty():
            click.echo(f"{self._options.output}: {tally}", err=True)
        return self._skipped

    def _stream(self) -> AbstractContextManager[BinaryIO]:
        from serving.rendering import open_output

        if self._options.output is None:
            return nullcontext(sys.stdout.buffer)
        return open_output(self._options.output)

    def _file_writer(self, stream: BinaryIO, predictor: Predictor) -> Writer:
        from serving.rendering import new_writer

        return new_writer(self._format, stream, self._columns(), predictor.manifest.model_version)

    def _terminal(self) -> Any:
        """Return the console of a table that goes to the terminal, else None."""
        from rich.console import Console

        on_terminal = self._options.output is None and self._format == "table" and sys.stdout.isatty()
        return Console(highlight=False) if on_terminal else None

    def _columns(self) -> dict[str, set[Any]]:
        """Return the columns of all sources and the kinds of their values."""
        from serving.documents import kept_columns
        from serving.rendering import ANSWERS

        columns: dict[str, set[Any]] = {}
        for found in self._surveys:
            for name, kinds in kept_columns(found, ANSWERS).items():
                columns[name] = columns.get(name, set()) | kinds
        return columns

    def _progress_bar(self, console: Any) -> Progress:
        """Return a progress bar for stderr, or for the table's own console, which prints above it."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        shown = console or Console(stderr=True)
        columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=shown, transient=True, disable=not sys.stderr.isatty())

    def _write_all(self, predictor: Predictor, writer: Writer, progress: Progress) -> Tally:
        from serving.rendering import Tally

        records = sum(found.records for found in self._surveys)
        task = progress.add_task("", total=records if records > 1 else None)
        tally = Tally()
        for labelled in _labelled(self._documents(progress), predictor):
            writer.write(labelled)
            tally.add(labelled)
            progress.update(task, advance=labelled.document.records)
        if not tally.sentences:
            raise SaysoError("no row could be labelled; nothing was written")
        writer.finish(tally)
        return tally

    def _documents(self, progress: Progress) -> Iterator[Document]:
        from serving.documents import read_documents
        from serving.rendering import ANSWERS

        def report(problem: str) -> None:
            self._skipped += 1
            _say(problem, progress)

        for found in self._surveys:
            yield from read_documents(found, ANSWERS, report)


def _say(problem: str, progress: Progress) -> None:
    """Print a line on stderr, above the progress bar if there is one."""
    if progress.disable:
        click.echo(problem, err=True)
    else:
        progress.console.print(problem, markup=False, highlight=False, soft_wrap=True)


def _labelled(documents: Iterable[Document], predictor: Predictor) -> Iterator[Labelled]:
    """Yield each document with its predictions; some are in memory at a time, never all."""
    from serving.rendering import Labelled

    for chunk in _chunks(documents):
        predictions = predictor.predict([document.article for document in chunk])
        yield from map(Labelled, chunk, predictions)


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield documents in lists that are worth a call of the predictor and small in memory."""
    chunk: list[Document] = []
    sentences = chars = 0
    for document in documents:
        chunk.append(document)
        sentences += len(document.article.sentences)
        chars += sum(map(len, document.article.sentences))
        if sentences >= _CHUNK_SENTENCES or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, sentences, chars = [], 0, 0
    if chunk:
        yield chunk


# --- sayso serve -----------------------------------------------------------------------------------------


@main.command(epilog=_SERVE_EXIT_CODES)
@click.option(
    "--host", metavar="ADDRESS", help="The IP address to listen on; 0.0.0.0 for all. [default: 127.0.0.1]"
)
@click.option("--port", metavar="PORT", help="The port to listen on. [default: 3000]")
@click.option("--model", metavar="DIR", help="A model directory. Default: the model that comes with Sayso.")
@click.option(
    "--workers", metavar="N", help="How many processes answer; each holds its own model. [default: 1]"
)
@click.option(
    "--api-keys", metavar="FILE", help="Ask for an API key of this file (`sayso new-key` makes it)."
)
@click.option(
    "--insecure", is_flag=True, flag_value="1", default=None, help="Let other machines call without a key."
)
def serve(**options: str | None) -> None:
    """Start the HTTP service.

    It runs until Ctrl-C or SIGTERM, and answers first what it has accepted. Every option, and more, can also
    be set in the environment: SAYSO_HOST, SAYSO_PORT, SAYSO_MODEL, SAYSO_WORKERS, SAYSO_API_KEYS …; an option
    goes before a variable. Beyond this machine (--host) it asks for API keys, or to be told that it needs none.

    \b
    Examples:
      sayso serve
      sayso serve --port 8080 --model runs/mine --workers 2
      sayso new-key newsroom --file keys.txt
      sayso serve --host 0.0.0.0 --api-keys keys.txt
      curl -s http://127.0.0.1:3000/analyze --json '{"text": "The ministry denied it. Analysts doubt that."}'
    """
    from serving.artifact import DEFAULT_MODEL, read_manifest
    from serving.hosting import host_command
    from serving.keys import read_keys
    from serving.settings import PREFIX, Settings

    given = {PREFIX + name.upper(): value for name, value in options.items() if value is not None}
    settings = Settings.from_env(os.environ | given)
    settings.check_open()
    if settings.api_keys:
        read_keys(settings.api_keys)
    read_manifest(settings.model or DEFAULT_MODEL)  # names a missing model before a server starts
    command = host_command(settings, os.environ)
    os.execve(command.argv[0], command.argv, command.environ)


@main.command()
@click.argument("name")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the key to this keys file, made if need be.",
)
@click.option("--per-minute", type=click.IntRange(1, 999_999_999), help="The most requests a minute with it.")
def new_key(name: str, file: Path | None, per_minute: int | None) -> None:
    """Make an API key for the HTTP service.

    The key itself is printed once and kept nowhere: give it to the caller, who sends it as
    `Authorization: Bearer KEY`. The keys file holds its hash. To replace a key, add the new one under another name,
    restart the workers, and delete the old one's line when nobody uses it any longer. Without --file, the line for
    the keys file is printed too.

    \b
    Examples:
      sayso new-key newsroom --file keys.txt
      sayso new-key archive-2 --file keys.txt --per-minute 600
    """
    from serving.keys import new_key, read_keys

    token, key = new_key(name, per_minute or 0)
    if file is None:
        click.echo(key.line(), err=True)
    else:
        if file.exists() and file.stat().st_size and any(k.name == name for k in read_keys(file)):
            raise SaysoError(
                f"{file}: has a key called {name} already; choose another name, such as {name}-2"
            )
        with open(file, "a", encoding="utf-8", opener=partial(os.open, mode=0o600)) as stream:
            stream.write(key.line() + "\n")
    click.echo(token)


if __name__ == "__main__":
    main(prog_name="sayso")
