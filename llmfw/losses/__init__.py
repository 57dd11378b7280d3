"""The mathematics of training losses, in plain torch and nothing else.

``logps``       hidden states, head and labels to per-token log-probs, chunked, with a backward of its own
``causal_lm``   cross entropy of the trained tokens
``preference``  pairwise losses: token weights, segment sums, margins, links, and what is logged about them
``policy_gradient``  completions with rewards: advantages, clipped ratios, a pull to the reference

Nothing is imported here, so ``import llmfw.losses`` stays light; import the module that you need.
"""
