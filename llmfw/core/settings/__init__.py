"""How settings are read: strict YAML, keys and their types, layers with their places, limits, near names."""
