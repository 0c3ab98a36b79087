"""Offline rounds: predict the unlabeled scans, keep what can be trusted, train on it, go on."""
