"""Prediction where nnU-Net's own is not exact enough."""
