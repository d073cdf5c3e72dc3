"""The house rules: who imports whom, what is in the wheel, the datasets trap, no pickle, the README's commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from toy import ROOT

HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "datasets")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


SERVING = sorted((ROOT / "serving").glob("*.py"))
TRAINING = sorted((ROOT / "training").glob("*.py"))


@pytest.mark.parametrize("path", SERVING, ids=lambda p: p.name)
def test_serving_imports_neither_training_nor_what_only_training_needs(path: Path) -> None:
    assert not imports(path) & {"training", *HEAVY}


@pytest.mark.parametrize("path", SERVING + TRAINING, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_only_the_service_imports_bentoml_and_nothing_pickles(path: Path) -> None:
    assert "bentoml" not in imports(path) or path.name == "service.py"
    assert not imports(path) & {"pickle", "joblib", "dill", "cloudpickle"}


def test_importing_the_service_loads_nothing_of_training() -> None:
    code = "import sys, serving.service; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(loaded) & {"training", *HEAVY}


def test_the_folder_datasets_does_not_shadow_the_library() -> None:
    assert not list((ROOT / "datasets").rglob("*.py"))
    code = "import datasets; print(datasets.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(found.stdout.strip()).is_relative_to(ROOT / "datasets")
    assert "site-packages" in found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_packages_the_default_model_and_nothing_else(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"serving", "training"}
    assert {"serving/default_model/model.int8.onnx", "serving/default_model/manifest.json"} <= set(wheel)
    assert "serving/default_model/tokenizer.json" in wheel
    assert not [name for name in wheel if name.endswith(".safetensors") or "checkpoint" in name]


def test_modules_stay_within_what_one_reads_at_a_time() -> None:
    too_long = {}
    for path in SERVING + TRAINING:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > 60:
                    too_long[f"{path.name}:{node.name}"] = length
    assert not too_long


def test_the_readme_names_commands_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (\w+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\]\(([\w./-]+)\)", readme):
        assert (ROOT / path).exists(), path
