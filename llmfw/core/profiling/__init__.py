"""Where a training step's time goes: phases, operations, what waits for the device, and a trace."""
