"""Where models, their texts and their observations come from."""
