"""Laws of key-value caches and decoders."""
