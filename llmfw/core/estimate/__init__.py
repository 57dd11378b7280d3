"""What a run will cost, told before a weight is read, and the micro-batch that follows from it."""
