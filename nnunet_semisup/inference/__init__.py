"""Predict where nnU-Net's own prediction is not exact enough."""
