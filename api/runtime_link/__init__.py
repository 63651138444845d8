"""The runtimes' endpoint, as a broker serves it."""
