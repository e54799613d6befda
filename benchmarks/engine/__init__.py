"""The engine's speed and cost beside its peers, in one run."""
