"""Scoring a run or predictions, and the tables that come of it."""
