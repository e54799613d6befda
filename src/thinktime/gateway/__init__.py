"""An OpenAI-compatible server in front of an endpoint: same client, a strategy in between, and its true cost."""
