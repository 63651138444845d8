"""Pure rules: the same arguments give the same answer; no clock, no environment, no I/O."""
