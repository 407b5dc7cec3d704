"""Project settings, read by Kedro."""

import warnings
from pathlib import Path

from reelrank.hooks import DryRunHooks, FinishHooks, FreshnessHooks, ParameterHooks
from reelrank.tracking import TrackingHooks

# Parameters keep their own names (worlds.kuairand) inside namespaces; node diagrams are an experimental feature.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
warnings.filterwarnings("ignore", message="The 'preview_fn' feature is experimental")

_SOURCE_TREE = Path(__file__).parents[2]
PROJECT = (
    _SOURCE_TREE if (_SOURCE_TREE / "conf").is_dir() else Path.cwd()
)  # packaged: where it runs


def absolute(path: str) -> str:
    """A parameter's path from the project's folder, wherever the command is given; Kedro does so for the catalog only."""
    return str((PROJECT / Path(path).expanduser()).resolve())


HOOKS = (
    ParameterHooks(),
    FinishHooks(),
    FreshnessHooks(),
    TrackingHooks(),
    DryRunHooks(),
)  # the last is called first
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # The default replaces whole top-level blocks: one --params key would drop the rest of its block.
    "custom_resolvers": {"project": absolute},
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}
