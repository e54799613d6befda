"""Access to OpenAI-compatible endpoints: an HTTP client, the wire format, probes, prices."""
