"""Scores as pure functions on numpy arrays; never imports torch."""
