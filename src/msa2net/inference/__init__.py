"""Applying a trained network."""
