"""The machinery of every training: loop, streams, settings, checkpoints, validation."""
