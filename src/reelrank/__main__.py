"""``python -m reelrank``: run the packaged project."""

from __future__ import annotations

import sys
from pathlib import Path

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project


def main() -> None:
    """Run the project's ``kedro run`` command."""
    configure_project(Path(__file__).parent.name)
    find_run_command(Path(__file__).parent.name)(sys.argv[1:])


if __name__ == "__main__":
    main()
