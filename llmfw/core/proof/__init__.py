"""Is a run that was killed the run that wasn't? Both are run, and what must be equal is compared."""
