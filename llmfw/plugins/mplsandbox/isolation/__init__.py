"""How a program is held: backends, features and what this machine has of them."""
