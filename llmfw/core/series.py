"""A run of runs: children one after another under one parent, resumable within each."""
