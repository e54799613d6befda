"""Prompts that several strategies share, the turns of a conversation, and templates that replace prompts."""
