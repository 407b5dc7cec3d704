"""What happens around a run: name the reports at its end, sweep up after killed ones."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from rich.console import Console

from reelrank.datasets.report import ReportDataset

STALE_STAGING_S = 24 * 3600


class FinishHooks:
    """Tell the user which page to open."""

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Print the path of every report that this run wrote."""
        console = Console()
        for name in sorted(pipeline.all_outputs()):
            dataset = catalog.get(name)
            if isinstance(dataset, ReportDataset):
                page = Path(dataset._describe()["filepath"]).resolve()
                console.print(f"\n[bold]Report:[/bold] open {page}", soft_wrap=True)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: DataCatalog) -> None:
        """Remove unfinished outputs of runs that were killed more than a day ago."""
        engine = catalog.get("params:engine")
        if engine is None:
            return
        options = engine.load()
        staging = Path(options["staging"] if isinstance(options, dict) else options.staging)
        for folder in staging.glob("*"):
            if time.time() - folder.stat().st_mtime > STALE_STAGING_S:
                shutil.rmtree(folder, ignore_errors=True)
