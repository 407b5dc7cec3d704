"""Project settings, read by Kedro."""

import warnings

from reelrank.hooks import FinishHooks

# Parameters keep their own names (worlds.kuairand) inside namespaces; node diagrams are an experimental feature.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
warnings.filterwarnings("ignore", message="The 'preview_fn' feature is experimental")

HOOKS = (FinishHooks(),)
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # The default replaces whole top-level blocks: one --params key would drop the rest of its block.
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}
