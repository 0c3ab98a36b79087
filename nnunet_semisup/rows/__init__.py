"""Rows of the table of methods, importable without torch."""
