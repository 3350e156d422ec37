"""Quantization itself: grids, schemes, what repairs a model, and what decides bits per layer."""
