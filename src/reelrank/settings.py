"""Project settings, read by Kedro."""

from reelrank.hooks import FinishHooks

HOOKS = (FinishHooks(),)
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # The default replaces whole top-level blocks: one --params key would drop the rest of its block.
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}
