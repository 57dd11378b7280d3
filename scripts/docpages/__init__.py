"""Pages of docs/ that are generated, one module each; ``scripts/write_docs.py`` writes them."""
