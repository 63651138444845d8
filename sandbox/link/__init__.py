"""The connection between a host runtime and its broker."""
