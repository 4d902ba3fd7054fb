"""Image, volume and array files: read into cases, and masks written."""
