"""Show a complete run on a made-up data set: phantom, stock commands, report."""
