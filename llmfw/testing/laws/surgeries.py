"""Laws of surgeries."""
