"""What reproduce.py runs: sampled programs and their tests, other people's source files, attacks."""
