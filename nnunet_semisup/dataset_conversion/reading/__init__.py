"""Files to volumes: formats, geometry, values and names of labels."""
