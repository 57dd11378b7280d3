"""Programs that take the same steps, each in a process of its own; those of peers lie in ``peers/``."""
