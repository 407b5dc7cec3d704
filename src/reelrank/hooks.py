"""What happens around a run: refuse wrong parameters, sweep up after killed runs, name the reports at the end."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.validation.exceptions import ParameterValidationError
from rich.console import Console

from reelrank.datasets.report import ReportDataset

STALE_STAGING_S = 24 * 3600


class ParameterHooks:
    """Refuse a wrong parameter before anything runs, with its path."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check the whole tree of parameters."""
        from reelrank.parameters import check_parameters  # noqa: PLC0415 (reads options of all packages)

        wrong = check_parameters(context.config_loader["parameters"])
        if wrong:
            raise ParameterValidationError(
                "Wrong parameters:\n" + "\n".join(f"- {w}" for w in wrong)
            )


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
            try:
                age_s = time.time() - folder.stat().st_mtime
            except FileNotFoundError:  # another run has just finished with it
                continue
            if age_s > STALE_STAGING_S:
                shutil.rmtree(folder, ignore_errors=True)
