"""Provide semi-supervised segmentation methods as trainers of nnU-Net v2."""

__version__ = "0.1.0"
