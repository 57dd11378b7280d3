"""CHAMP (Mao, Kim, Zhou: arXiv 2406.18321): competition problems, and what real language models answered.

``extract`` reads the claimed answer off a one-sentence summary, ``judge`` compares it with the gold answer,
``verdicts`` does so for every conversation once, ``source`` reads the package, ``rows`` makes preference
pairs and problems of it.
"""
