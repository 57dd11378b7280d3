"""How a training runs: its job, optimizer and schedule, validation, ranks, the guard before an update."""
