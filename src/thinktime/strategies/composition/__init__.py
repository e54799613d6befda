"""Methods that combine several prompts or strategies."""
