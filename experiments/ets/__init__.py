"""See ``run``."""
