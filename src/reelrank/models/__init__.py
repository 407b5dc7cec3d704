"""Torch modules that two or more systems use, and the Policy protocol."""
