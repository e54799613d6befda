"""What speaks to OpenAI-compatible endpoints: one HTTP client, the wire format, a probe, prices."""
