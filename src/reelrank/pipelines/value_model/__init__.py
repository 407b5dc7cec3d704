"""The multi-head value model."""
