"""Laws of plugins that train: neutral, effective, deterministic, resumable."""
