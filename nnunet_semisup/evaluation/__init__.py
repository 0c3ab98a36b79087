"""Score label maps: metrics, tables, pictures, and comparisons of evaluations."""
