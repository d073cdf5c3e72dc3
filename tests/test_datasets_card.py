"""The folder ``datasets/``: its card, and that Hugging Face's library loads it offline."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.splits import SHARES, WRITTEN_COLUMNS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "datasets"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")

LOAD = """
import collections, json, sys
import datasets
loaded = datasets.load_dataset(sys.argv[1])
print(json.dumps({
    name: {
        "columns": split.column_names,
        "sentences": split.num_rows,
        "articles": len(set(split["article_id"])),
        "beats": len(set(split["beat"])),
        "pairs": sum(pair is not None for pair in split["pair"]),
        **collections.Counter(split["label"]),
        **{f"voice {voice}": n for voice, n in collections.Counter(split["voice"]).items()},
        "**doubt**": sum(split["doubt"]),
    }
    for name, split in loaded.items()
}))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load in a process of its own: the library reads its offline switch and cache when it is imported."""
    cache = tmp_path_factory.mktemp("cache")
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(FOLDER)],
        env={**os.environ, **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def card_counts() -> dict[str, list[int]]:
    """Return the rows of the card's table of splits: name -> train, validation, test, all."""
    table = CARD.partition("## Splits")[2].partition("\n80 /")[0]
    rows = re.findall(r"^\| (\S+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", table, re.MULTILINE)
    return {name.strip("`"): [int(cell.replace(",", "")) for cell in cells] for name, *cells in rows}


def test_hugging_face_loads_the_folder_offline_with_the_columns_of_the_card(loaded: Any) -> None:
    assert list(loaded) == list(SHARES)
    for split in loaded.values():
        assert split["columns"] == list(WRITTEN_COLUMNS)
    assert sum(split["pairs"] for split in loaded.values()) == 3371


@pytest.mark.parametrize("name", [name for name in card_counts() if name not in {"all"}])
def test_the_card_counts_what_is_loaded(loaded: Any, name: str) -> None:
    counts = card_counts()[name]
    voices = {"party", "outside", "expert", "private", "none"}
    found = [split[f"voice {name}" if name in voices else name] for split in loaded.values()]
    assert [*found, sum(found)] == counts


def test_the_card_has_a_count_for_every_label_and_voice() -> None:
    assert len(card_counts()) == 3 + 4 + 5 + 1


def test_the_card_describes_every_column() -> None:
    front = yaml.safe_load(CARD.split("---\n")[1])
    assert [feature["name"] for feature in front["dataset_info"]["features"]] == list(WRITTEN_COLUMNS)
    assert front["license"] == "apache-2.0"
    for column in WRITTEN_COLUMNS:
        assert f"\n| `{column}` |" in CARD


def test_the_files_that_the_card_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", CARD):
        assert (FOLDER / target).is_file(), target


def test_there_is_no_python_under_datasets() -> None:
    assert not list(FOLDER.rglob("*.py"))


def test_import_datasets_gives_hugging_faces_library_and_not_the_folder() -> None:
    spec = importlib.util.find_spec("datasets")
    assert spec is not None
    assert spec.origin is not None
    assert FOLDER.resolve() not in Path(spec.origin).resolve().parents
