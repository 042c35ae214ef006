"""Weights chosen for what the layers compute rather than for themselves, unit by unit of a calibrated graph."""
