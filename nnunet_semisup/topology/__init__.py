"""Connected components of probability maps over all thresholds, on the host, from arrays alone."""
