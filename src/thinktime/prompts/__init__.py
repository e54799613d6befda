"""Prompts that several strategies share, the turns they are made of, and a user's words in their place."""
