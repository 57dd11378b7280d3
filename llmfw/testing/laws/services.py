"""Laws of services; of executors in particular."""
