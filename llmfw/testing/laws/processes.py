"""Laws of plugins in several processes."""
