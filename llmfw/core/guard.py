"""Watches over plugin code while it's imported or a hook runs: exits, hangs, thefts."""
