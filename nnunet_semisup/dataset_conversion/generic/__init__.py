"""A user's own folders of images, in whatever layout."""
