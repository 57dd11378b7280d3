"""Claims, their runs, their verdicts, and the files that keep them."""
