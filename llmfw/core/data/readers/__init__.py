"""Readers of data files, one module a kind; ``llmfw.core.data.reader`` chooses by suffix.

A reader is called with (path, bad rows, counts, options) and yields (where in the file, object).
"""
