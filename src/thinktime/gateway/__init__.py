"""An OpenAI-compatible server in front of an endpoint. It answers requests by searches and reports their cost."""
