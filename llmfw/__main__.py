"""``python -m llmfw``: the command line, for launchers that start a module."""

from llmfw.cli import main

if __name__ == "__main__":
    main()
