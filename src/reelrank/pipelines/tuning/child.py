"""``kedro run`` in a process that ends when its parent does: ``python -m reelrank.pipelines.tuning.child RUN.yml PARENT``.

A search that is killed leaves no training behind that nobody listens to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from kedro.framework.cli import main as kedro

POLL_S = 1.0


def main(config: str, parent: int) -> None:
    """Run Kedro with a configuration file, in the project in which we stand, while process `parent` lives."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that hooks see the end
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.argv = ["kedro", "run", "--config", config]
    kedro()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
