"""The image that agents of ours run in, built without a registry."""
