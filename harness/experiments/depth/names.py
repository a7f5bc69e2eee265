"""What rows of `depth` call the models as they were trained; their rounded copies are called by their bits."""

FLOAT = "float32"
