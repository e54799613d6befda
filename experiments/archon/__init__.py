"""See ``control``, ``real`` and ``live``."""
