"""How ``sayso serve`` starts BentoML's server: the command, and the environment that it runs in."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.settings import Settings

_PACKAGE_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class HostCommand:
    """What to execute; ``os.execve(command.argv[0], command.argv, command.environ)`` does it."""

    argv: list[str]
    environ: dict[str, str]


def host_command(settings: Settings, environ: Mapping[str, str]) -> HostCommand:
    """Return the command that serves with these settings, called from a process with this environment."""
    flags = {
        # The server imports from its working directory first; the user's may hold a serving.py or a json.py.
        "working-dir": str(_PACKAGE_ROOT),
        "host": settings.host,
        "port": str(settings.port),
        "timeout-graceful-shutdown": str(settings.shutdown_s),
    }
    argv = [sys.executable, "-P", "-m", "bentoml", "serve", "serving.service:Sayso"]
    argv += [f"--{name}={value}" for name, value in flags.items()]
    ours = {"BENTOML_DO_NOT_TRACK": "True", **settings.environment()}
    home = environ.get("BENTOML_HOME") or str(_home(environ, settings.port))
    return HostCommand(argv, {**environ, **ours, "BENTOML_HOME": home})


def _home(environ: Mapping[str, str], port: int) -> Path:
    """Return a directory for the server's own files: one a port, since a server that starts empties it."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "sayso" / f"server-{port}"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home, as in many containers
        return Path(tempfile.mkdtemp(prefix="sayso-"))
    return home
