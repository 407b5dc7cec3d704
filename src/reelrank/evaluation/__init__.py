"""Ranking, classification and value metrics with their uncertainty."""
