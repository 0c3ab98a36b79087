"""The package's commands: one thin file each."""
