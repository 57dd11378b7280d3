"""Sweeps: one run a combination of settings, children of one run; Optuna chooses what is tried."""
