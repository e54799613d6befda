"""A cascade of a small and a large model."""
