"""Whether the tests see faults."""
