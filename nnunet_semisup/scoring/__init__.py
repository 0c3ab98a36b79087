"""Scores of predicted scans, by which they are ranked and filtered; one score a file."""
