"""Pure functions from canonical tables to features."""
