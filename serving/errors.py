"""The error that users see: one sentence that says what was found, where, and what to do."""

from __future__ import annotations


class SaysoError(ValueError):
    """An expected failure; the command line prints it as ``error: …`` and exits with 2."""
