"""Hold the package's commands, one thin file each."""
