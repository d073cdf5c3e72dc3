"""``sayso-train``: check data, fine-tune, average, evaluate, compare, export."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.errors import SaysoError

if TYPE_CHECKING:
    from serving.predictor import Predictor
    from training.config import Config
    from training.corpus import LabelledArticle
    from training.evaluation import Evaluation
    from training.model import Network

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
MODEL_HELP = "Model directory that `fit` wrote; without it, the embedded default."


@contextmanager
def _expected_errors(resume_hint: str = "") -> Iterator[None]:
    try:
        yield
    except SaysoError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail(f"interrupted; nothing was overwritten{resume_hint}", 130)
    except OSError as error:
        full = "; free some space" if error.errno == errno.ENOSPC else ""
        _fail(f"{error}{full}; nothing was overwritten{resume_hint}", 2)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with _expected_errors():
            function(*args, **kwargs)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sayso")
def main() -> None:
    """Train, evaluate and export Sayso's sentence classifier.

    \b
    sayso-train check-data mine.csv                  is my data all right?
    sayso-train fit --config configs/quick.yaml -o models/quick
    sayso-train evaluate --model models/quick --data test
    sayso label --model models/quick article.txt     use it

    Exit codes: 0 all went well, 1 the data has errors, 2 something cannot be done, 130 interrupted.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@main.command("check-data")
@click.argument("files", nargs=-1, required=True, type=FILE)
@_command
def check_data(files: tuple[Path, ...]) -> None:
    """Check labelled FILES (JSONL, CSV or Parquet): every error with its line, then a table of labels.

    A row is a sentence with at least `text` and `label`; `article_id`, `position`, `title`, `voice` and `doubt`
    are optional. The annotation guide (datasets/annotation-guide.md) says what the labels mean.
    """
    from training.corpus import check_file

    checks = [check_file(path) for path in files]
    errors = [error for check in checks for error in check.errors]
    for error in errors:
        click.echo(error, err=True)
    _print_counts([article for check in checks for article in check.articles])
    if errors:
        click.echo(f"{len(errors)} error{'s' if len(errors) > 1 else ''}", err=True)
        sys.exit(1)


@main.command()
@click.option(
    "--config", "-c", type=FILE, help="A recipe, such as configs/quick.yaml; without it, the defaults."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides the recipe; repeatable."
)
@click.option("--extra-data", multiple=True, type=FILE, help="Labelled file to train on besides; repeatable.")
@click.option(
    "--validation-data", multiple=True, type=FILE, help="Labelled file to choose and calibrate by besides."
)
@click.option(
    "--teacher-scores",
    multiple=True,
    type=FILE,
    help="A teacher's answers as `sayso label` writes them, to learn from besides; repeatable.",
)
@click.option("--output", "-o", type=DIRECTORY, required=True, help="Model directory to write.")
@click.option(
    "--init", metavar="DIR|default", help="Continue from a model's weights, or from the embedded default's."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of a run that was interrupted.")
def fit(
    config: Path | None,
    overrides: tuple[str, ...],
    extra_data: tuple[Path, ...],
    validation_data: tuple[Path, ...],
    teacher_scores: tuple[Path, ...],
    output: Path,
    init: str | None,
    resume: bool,
) -> None:
    """Fine-tune a model and write its directory, with its evaluation on validation and test.

    \b
    sayso-train fit -c configs/quick.yaml -o models/quick
    sayso-train fit -c configs/default.yaml --set epochs=8 --set seed=2 -o models/mine
    sayso-train fit -c configs/release.yaml --extra-data labelled.jsonl -o models/release
    sayso-train fit --init default --extra-data mine.csv --set epochs=2 -o models/mine

    \b
    A small model learns also from a larger one, and from articles that nobody has labelled:
    sayso-train fit -c configs/large.yaml --extra-data labelled.jsonl -o models/large
    sayso label --model models/large labelled.jsonl -o scores.jsonl
    sayso label --model models/large --unit article archive.jsonl -o more.jsonl
    cat scores.jsonl more.jsonl > teacher.jsonl
    sayso-train fit --extra-data labelled.jsonl --teacher-scores teacher.jsonl -o models/small

    The output appears when it is complete; until then checkpoints lie beside it in OUTPUT.checkpoints.
    """
    from training.recipe import checkpoint_directory, fit

    checkpoints = checkpoint_directory(output)
    hint = f"; run the same command with --resume to go on from {checkpoints}" if not resume else ""
    with _expected_errors(hint):
        _quiet_libraries()
        settings = _config(
            config,
            overrides,
            extra_data=extra_data,
            validation_data=validation_data,
            teacher_scores=teacher_scores,
        )
        manifest = fit(settings, output, resume=resume, start=_start(init, settings), say=click.echo)
        click.echo(f"{output}: model {manifest.model_version}")
        click.echo((output / "report.md").read_text(encoding="utf-8"))


@main.command()
@click.option("--model", "-m", type=DIRECTORY, help=MODEL_HELP)
@click.option(
    "--data", "-d", multiple=True, required=True, metavar="FILE|SPLIT", help="Labelled file, or test, …"
)
@click.option(
    "--output", "-o", type=DIRECTORY, help="Where the report goes; by default into the model directory."
)
@click.option("--precision", type=click.Choice(["int8", "fp32"]), default="int8", show_default=True)
@click.option("--fidelity", is_flag=True, help="Read in fp32, too, and tell what int8 costs.")
@click.option("--about", default="", help="A sentence in the report on what the data is.")
@_command
def evaluate(
    model: Path | None,
    data: tuple[str, ...],
    output: Path | None,
    precision: str,
    fidelity: bool,
    about: str,
) -> None:
    """Measure a model on labelled data, in context and sentence by sentence, through the serving code.

    Writes report.json, report.md and plots. Macro-F1 comes with a 95 % bootstrap interval over articles.

    \b
    sayso-train evaluate --model models/quick --data test
    sayso-train evaluate --data my-labels.csv --output report
    """
    from serving.artifact import DEFAULT_MODEL, read_manifest, seal
    from serving.predictor import Predictor
    from training.data import read_set
    from training.report import dataset_name, write_report

    directory = model or DEFAULT_MODEL
    predictor = Predictor.load(directory, precision=precision)
    sets = {dataset_name(name): read_set(name) for name in data}
    in_context = {name: _evaluated(predictor, articles, name, alone=False) for name, articles in sets.items()}
    alone = {name: _evaluated(predictor, articles, name, alone=True) for name, articles in sets.items()}
    fp32 = Predictor.load(directory, precision="fp32") if fidelity else None
    exact = {n: _evaluated(fp32, articles, n, alone=False) for n, articles in sets.items()} if fp32 else None
    write_report(
        in_context,
        output or directory,
        alone=alone,
        exact=exact,
        about=dict.fromkeys(sets, about) if about else None,
        model=predictor.manifest.model_version,
    )
    if output is None:
        seal(directory, read_manifest(directory))
    click.echo(((output or directory) / "report.md").read_text(encoding="utf-8"))


@main.command()
@click.option("--model", "-m", type=DIRECTORY, required=True, help="Model directory that `fit` wrote.")
@click.option(
    "--single", type=DIRECTORY, help="Model trained with context=false; without it, it is trained now."
)
@click.option("--peers", is_flag=True, help="Also SetFit and model2vec (pip install 'sayso[peers]').")
@click.option("--data", "-d", multiple=True, default=("test",), show_default=True, metavar="FILE|SPLIT")
@_command
def compare(model: Path, single: Path | None, peers: bool, data: tuple[str, ...]) -> None:
    """Compare a model with baselines that learn from the same rows, and add the table to its report.

    The rows: the commonest label; TF-IDF with logistic regression; the frozen encoder with logistic regression;
    with --peers a static model2vec and SetFit; the same fine-tuning on single sentences with no context; the model,
    each sentence alone; the model in context.
    """
    from serving.artifact import read_manifest, seal
    from training.baselines import compare
    from training.config import load_config
    from training.data import read_data, read_set
    from training.recipe import CONFIG
    from training.report import dataset_name, write_comparison

    _quiet_libraries()
    config = load_config(model / CONFIG)
    learnt = read_data(config)
    comparison = compare(
        _rows(model, single, config, peers=peers),
        {dataset_name(name): read_set(name) for name in data},
        train=learnt.train,
        validation=learnt.validation,
        say=lambda line: click.echo(line, err=True),
    )
    manifest = read_manifest(model)
    write_comparison(comparison.as_dict(), model, model=manifest.model_version)
    seal(model, manifest)
    click.echo(comparison.markdown())


@main.command()
@click.option("--model", "-m", type=DIRECTORY, help=MODEL_HELP)
@click.option("--cases", type=FILE, help="JSONL of cases; without it, datasets/behaviour.jsonl.")
@click.option("--show", is_flag=True, help="Show every case that fails.")
@_command
def behaviour(model: Path | None, cases: Path | None, show: bool) -> None:
    """Test what a careful reader never gets wrong, capability by capability, and add the table to the report.

    A case is one short article or several, each with a target sentence: its label must be right, must not follow
    a name (invariance), or must change with the role (direction).
    """
    from serving.artifact import DEFAULT_MODEL, read_manifest, seal
    from serving.predictor import Predictor
    from training.behaviour import read_cases, run
    from training.report import behaviour_lines, write_behaviour
    from training.splits import written_file

    directory = model or DEFAULT_MODEL
    found = run(Predictor.load(directory), read_cases(cases or written_file("behaviour.jsonl")))
    for failure in found.failures if show else ():
        click.echo(f"{failure.case.capability}: {failure.case.note}")
        for target, answer in zip(failure.case.articles, failure.answers, strict=True):
            click.echo(f"  {answer.value}, right {target.label.value}: {target.sentences[target.target - 1]}")
    manifest = read_manifest(directory)
    figures = write_behaviour(found, directory, model=manifest.model_version)
    seal(directory, manifest)
    click.echo("\n".join(behaviour_lines(figures)))


@main.command()
@click.option("--model", "-m", type=DIRECTORY, help=MODEL_HELP)
@click.option("--data", "-d", metavar="FILE|SPLIT", help="Labelled file, or test, …")
@click.option("--count", default=100, show_default=True, help="How many errors to draw.")
@click.option("--output", "-o", type=FILE, help="CSV to write.")
@click.option("--read", "sheet", type=FILE, help="CSV whose column `kind` is filled in.")
@_command
def errors(model: Path | None, data: str | None, count: int, output: Path | None, sheet: Path | None) -> None:
    """Sort a model's errors by kind: write a sheet of them, fill its column `kind`, and add the table to the report.

    \b
    sayso-train errors -d labelled-news.jsonl -o errors.csv
    sayso-train errors --read errors.csv

    Kinds: context, role, doubt, speech, expert, guide, other. The sheet holds sentences of the articles; the table
    holds none.
    """
    from serving.artifact import DEFAULT_MODEL, read_manifest, seal
    from training.errors import read_sheet
    from training.report import error_lines, write_errors

    directory = model or DEFAULT_MODEL
    if sheet is None:
        if data is None or output is None:
            raise click.UsageError(
                "give --data and --output for a new sheet, or --read for one that is filled in"
            )
        _write_sheet(directory, data, count, output)
        return
    manifest, found = read_manifest(directory), read_sheet(sheet)
    if found.model != manifest.model_version:
        raise SaysoError(
            f"{sheet}: of model {found.model}, and {directory} is {manifest.model_version}; see --model"
        )
    figures = write_errors(found, directory, model=manifest.model_version)
    seal(directory, manifest)
    click.echo("\n".join(error_lines(figures)))


def _write_sheet(directory: Path, data: str, count: int, output: Path) -> None:
    from serving.predictor import Predictor
    from serving.rendering import open_output
    from training.data import read_set
    from training.errors import error_sheet
    from training.report import dataset_name

    predictor, articles = Predictor.load(directory), read_set(data)
    version = predictor.manifest.model_version
    content = error_sheet(predictor, articles, model=version, data=dataset_name(data), count=count)
    with open_output(output) as file:
        file.write(content)
    click.echo(f"{output}: fill the column `kind`, then run `sayso-train errors --read {output}`")


@main.command("swap-names")
@click.option("--model", "-m", type=DIRECTORY, help=MODEL_HELP)
@click.option("--data", "-d", default="test", show_default=True, metavar="FILE|SPLIT")
@click.option("--draws", default=3, show_default=True, help="How often other names are drawn.")
@_command
def swap_names(model: Path | None, data: str, draws: int) -> None:
    """Put other countries, groups and persons into the articles, count the labels that change, and add the table
    to the report: a label must not follow a name."""
    from serving.artifact import DEFAULT_MODEL, read_manifest, seal
    from serving.predictor import Predictor
    from training.data import read_set
    from training.names import NameSwaps, measure
    from training.report import dataset_name, swap_lines, write_swaps

    directory = model or DEFAULT_MODEL
    articles = read_set(data)
    found = measure(Predictor.load(directory), articles, NameSwaps(articles), draws=draws)
    manifest = read_manifest(directory)
    figures = write_swaps(found, dataset_name(data), directory, model=manifest.model_version)
    seal(directory, manifest)
    click.echo("\n".join(swap_lines(figures)))


@main.command()
@click.option("--model", "-m", type=DIRECTORY, required=True, help="Model directory that `fit` wrote.")
@click.option("--part", type=click.Choice(["serving", "checkpoint"]), default="serving", show_default=True)
@click.option("--output", "-o", type=DIRECTORY, required=True, help="Model directory to write.")
@_command
def export(model: Path, part: str, output: Path) -> None:
    """Write the part of a model that serving needs (int8 ONNX, tokenizer, reports) or that training on needs."""
    from training.recipe import export_part

    manifest = export_part(model, part, output)
    click.echo(f"{output}: {', '.join(sorted(manifest.files))}")


@main.command("probe")
@click.option("--real", type=FILE, help="Labelled real articles, to see how unlike them the corpus is.")
@_command
def probe_artefacts(real: Path | None) -> None:
    """Probe the written corpus: how far can labels be guessed from a sliver of each sentence?

    \b
    sayso-train probe
    sayso-train probe --real labelled-news.jsonl
    """
    from training.data import read_set
    from training.probes import probe, tell_apart
    from training.report import table

    train, test = read_set("train"), read_set("test")
    rows = [
        [name, f"{macro_f1:.3f} [{interval.low:.3f}, {interval.high:.3f}]"]
        for name, (macro_f1, interval) in probe(train, test).items()
    ]
    click.echo("\n".join(table(["seen of each sentence", "macro-F1 on test"], rows)))
    if real is not None:
        auc = tell_apart(train, read_set(str(real)))
        click.echo(f"\nwritten against real articles, cross-validated AUC: {auc:.3f} (0.5 is chance)")


@main.command()
@click.option("--model", "-m", type=DIRECTORY, help=MODEL_HELP)
@click.option("--beside", multiple=True, type=DIRECTORY, help="Another model whose figures are shown, too.")
@_command
def card(model: Path | None, beside: tuple[Path, ...]) -> None:
    """Write a model's card (README.md) from its reports; evaluate, compare and test its behaviour first."""
    from serving.artifact import DEFAULT_MODEL, read_manifest, seal
    from training.card import write_card

    directory = model or DEFAULT_MODEL
    path = write_card(directory, beside)
    seal(directory, read_manifest(directory))
    click.echo(f"{path}")


@main.command()
@click.argument("models", nargs=-1, required=True, type=DIRECTORY)
@click.option("--output", "-o", type=DIRECTORY, required=True, help="Model directory to write.")
@_command
def average(models: tuple[Path, ...], output: Path) -> None:
    """Average the weights of MODELS that continue from the same one, and write a model of them.

    It is often better than each of them; it is calibrated and evaluated like a model that `fit` wrote.

    \b
    sayso-train fit --init models/first --set epochs=2 --set seed=1 -o models/one
    sayso-train fit --init models/first --set epochs=2 --set seed=2 -o models/two
    sayso-train average models/one models/two -o models/both
    """
    from training.recipe import average

    _quiet_libraries()
    manifest = average(models, output, say=click.echo)
    click.echo(f"{output}: model {manifest.model_version}")
    click.echo((output / "report.md").read_text(encoding="utf-8"))


@main.command("join-texts")
@click.argument("labels", type=FILE)
@click.option(
    "--texts", type=FILE, required=True, help="JSONL with article_id, title and text; .gz is read, too."
)
@click.option("--output", "-o", type=FILE, required=True, help="JSONL to write, a labelled sentence a row.")
@_command
def join_texts(labels: Path, texts: Path, output: Path) -> None:
    """Join standoff LABELS, which may be shared, with their texts, which may not, to rows that `fit` takes.

    \b
    sayso-train join-texts datasets/readings-1.standoff --texts articles.jsonl.gz -o real.jsonl
    sayso-train fit -c configs/release.yaml --extra-data real.jsonl -o models/release
    """
    from serving.rendering import open_output
    from training.standoff import join

    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in join(labels, texts)]
    with open_output(output) as file:
        file.write("".join(lines).encode())
    click.echo(f"{output}: {len(lines):,} sentences")


def _config(path: Path | None, overrides: tuple[str, ...], **files: tuple[Path, ...]) -> Config:
    from training.config import load_config

    given = {key: tuple(str(p) for p in paths) for key, paths in files.items() if paths}
    return load_config(path, overrides, **given)


def _start(init: str | None, config: Config) -> Network | None:
    from serving.artifact import DEFAULT_MODEL
    from training.model import load_network

    if init is None:
        return None
    directory = DEFAULT_MODEL.with_name("default_checkpoint") if init == "default" else Path(init)
    if init == "default" and not directory.is_dir():
        raise SaysoError(
            "--init default: the default's checkpoint is in the repository, not in the wheel; clone it"
        )
    return load_network(directory, dropout=config.dropout, encoder_dropout=config.encoder_dropout)


def _evaluated(
    predictor: Predictor, articles: list[LabelledArticle], name: str, *, alone: bool
) -> Evaluation:
    from training.data import sentence_count
    from training.evaluation import evaluate

    label = f"{name}, {'alone' if alone else 'in context'}"
    hidden = not sys.stderr.isatty()
    with click.progressbar(
        length=sentence_count(articles), label=label, file=sys.stderr, hidden=hidden
    ) as bar:
        threshold = predictor.manifest.calibration.labels_90
        return evaluate(predictor, articles, alone=alone, labels_90=threshold, progress=bar.update)


def _rows(model: Path, single: Path | None, config: Config, *, peers: bool) -> Iterator[Any]:
    from serving.artifact import read_manifest
    from serving.predictor import Predictor
    from training.baselines import PredictorRow, cheap_baselines
    from training.peers import peers as other_libraries
    from training.recipe import checkpoint_directory, fit

    others = other_libraries(seed=config.seed, encoder=config.encoder) if peers else []
    yield from cheap_baselines(seed=config.seed, encoder=config.encoder)
    yield from others
    if single is None:
        single = model.with_name(model.name + "-single")
        alone = config.model_copy(update={"context": False, "alone_share": 1.0})
        fit(
            alone,
            single,
            resume=checkpoint_directory(single).is_dir(),
            say=lambda line: click.echo(line, err=True),
        )
    for name, directory, is_alone in (
        ("fine-tuned on single sentences", single, True),
        ("Sayso, each sentence alone", model, True),
        ("Sayso, in context", model, False),
    ):
        seconds = read_manifest(directory).training.get("seconds")
        yield PredictorRow(name, Predictor.load(directory), alone=is_alone, training_seconds=seconds)


def _print_counts(articles: list[LabelledArticle]) -> None:
    from rich.console import Console
    from rich.table import Table

    from training.corpus import count

    counts = count(articles)
    table = Table(
        "label", "sentences", "share", title=f"{counts.sentences:,} sentences, {counts.articles:,} articles"
    )
    for kind in (counts.labels, counts.voices):
        for name, number in kind.items():
            table.add_row(str(name), f"{number:,}", f"{number / max(1, counts.sentences):.1%}")
        table.add_section()
    table.add_row("doubt", f"{counts.doubts:,}", f"{counts.doubts / max(1, counts.sentences):.1%}")
    Console().print(table)


def _quiet_libraries() -> None:
    """Leave the terminal to Sayso's own lines and bar."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    main()
