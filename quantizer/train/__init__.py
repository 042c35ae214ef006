"""Quantization-aware training: weights that learn what their codes do, on the calibrated graph (arXiv 1806.08342)."""
