"""Settings come from the environment, once, and each value that cannot be used is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.hosting import host_command
from serving.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_blank_variables_count_as_unset() -> None:
    assert Settings.from_env({"SAYSO_PORT": " ", "SAYSO_MODEL": ""}) == Settings()


def test_values_are_read_by_their_kind() -> None:
    environ = {
        "SAYSO_PORT": " 8080 ",
        "SAYSO_DEADLINE_S": "2.5",
        "SAYSO_HOST": "localhost",
        "SAYSO_MODEL": "m",
    }
    settings = Settings.from_env(environ)
    assert (settings.port, settings.deadline_s, settings.host) == (8080, 2.5, "127.0.0.1")
    assert settings.model == Path.cwd() / "m"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SAYSO_PORT", "http", "a whole number from 1 to 65535"),
        ("SAYSO_PORT", "0", "a whole number from 1 to 65535"),
        ("SAYSO_PORT", "1.5", "a whole number from 1 to 65535"),
        ("SAYSO_PORT", "tcp://10.0.0.1:3000", "enableServiceLinks: false"),
        ("SAYSO_HOST", "example.org", "an IP address"),
        ("SAYSO_DEADLINE_S", "nan", "a number from 0.001 to 3600"),
        ("SAYSO_DEADLINE_S", "inf", "a number from 0.001 to 3600"),
        ("SAYSO_MAX_SENTENCES", "-1", "a whole number of at least 1"),
        ("SAYSO_MAX_SENTENCES", "9" * 5000, "a whole number of at least 1"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: found '.*{expected}"):
        Settings.from_env({name: value})


def test_a_misspelt_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        SettingsError, match="SAYSO_DEADLNE_S: no such setting; did you mean SAYSO_DEADLINE_S"
    ):
        Settings.from_env({"SAYSO_DEADLNE_S": "3"})


def test_variables_that_only_share_the_prefix_are_left_alone() -> None:
    kubernetes = {"SAYSO_SERVICE_HOST": "10.0.0.1", "SAYSO_PORT_3000_TCP": "tcp://10.0.0.1:3000"}
    assert Settings.from_env(kubernetes) == Settings()


def test_settings_survive_the_way_to_another_process() -> None:
    changes = {
        "model": Path("/m"),
        "port": 8080,
        "deadline_s": 0.5,
        "workers": 2,
        "threads": 3,
        "host": "::1",
    }
    settings = dataclasses.replace(Settings(), **changes)
    assert Settings.from_env(settings.environment()) == settings


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_workers_divide_the_cores_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.available_cores", lambda: 8)
    assert [Settings(workers=n).worker_threads for n in (1, 3, 16)] == [8, 2, 1]
    assert Settings(workers=3, threads=5).worker_threads == 5


def test_a_round_keeps_the_threads_busy_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.available_cores", lambda: 8)
    assert Settings().round_tokens == 4096
    assert Settings(batch_tokens=100).round_tokens == 100


def test_a_megabyte_of_text_is_within_the_default_limits() -> None:
    assert Settings().max_text_chars >= 1_200_000
    assert Settings().max_body_bytes >= 1.5 * 2**20


def test_the_server_starts_away_from_the_users_files_and_sends_nothing_home(tmp_path: Path) -> None:
    settings = Settings(port=8080, model=tmp_path / "model")
    command = host_command(settings, {"PATH": "/bin", "XDG_CACHE_HOME": str(tmp_path)})
    assert {"-P", "serving.service:Sayso", "--port=8080", "--host=127.0.0.1"} < set(command.argv)
    assert any(word.startswith("--timeout-graceful-shutdown=") for word in command.argv)
    assert command.environ["BENTOML_DO_NOT_TRACK"] == "True"
    assert command.environ["PATH"] == "/bin"
    assert Path(command.environ["BENTOML_HOME"]).is_relative_to(tmp_path)
    assert Settings.from_env(command.environ) == settings


def test_a_home_of_the_server_that_is_given_is_kept() -> None:
    assert host_command(Settings(), {"BENTOML_HOME": "/elsewhere"}).environ["BENTOML_HOME"] == "/elsewhere"


def test_a_read_only_cache_leaves_a_temporary_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = host_command(Settings(), {"XDG_CACHE_HOME": str(tmp_path / "file")})
    home = Path(command.environ["BENTOML_HOME"])
    assert home.is_dir()
    home.rmdir()
