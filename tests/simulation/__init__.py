"""A small world with a disk, a clock and chance of its own, in which crashes are tried wherever one can happen."""
