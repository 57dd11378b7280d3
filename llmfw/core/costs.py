"""What a run costs: tokens, seconds, memory; and what each plugin's parts cost in it."""
