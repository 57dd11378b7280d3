"""Chains of arithmetic: problems whose every step is known, so that a wrong one can be told and be made.

``chain`` says what a chain is and writes it, ``steps`` finds the first wrong line of a response and writes
wrong lines, ``draw`` chooses distinct chains by hashes, ``rows`` is the preset.
"""
