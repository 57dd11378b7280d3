"""Train with and without a plugin, everything else the same."""
