"""Planted-truth worlds: raw files in the official formats, with the truth beside them."""
