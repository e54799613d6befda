"""Real models: a catalogue, their download, and where they are on this machine. No module here needs torch."""
