"""What the core itself measures of a model: perplexity, answers against references, tasks of lm-eval."""
