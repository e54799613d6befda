"""Several prompts or strategies put together."""
