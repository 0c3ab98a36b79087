"""Verified cases to nnU-Net's raw format."""
