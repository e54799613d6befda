"""Independent samples: how many to draw, when to stop, which one answers."""
