"""Pure protocol and policy: no I/O, no clock, no randomness."""
