"""Laws of plugins beside one another."""
