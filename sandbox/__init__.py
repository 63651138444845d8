"""Runs one agent at a time inside gVisor, and reports to the control plane."""
