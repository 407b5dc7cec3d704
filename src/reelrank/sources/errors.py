"""What can be wrong with raw files as a whole; single bad rows go to the quarantine instead."""

from __future__ import annotations


class MissingRawFiles(FileNotFoundError):
    """Required files were not found; the message lists where they were looked for and where to get them."""


class WrongHeader(ValueError):
    """The first line of a file does not name the official columns."""


class EmptyFile(ValueError):
    """A file that cannot be done without holds no rows."""


class TooManyBadRows(ValueError):
    """More rows of a file were quarantined than the parameters allow."""
