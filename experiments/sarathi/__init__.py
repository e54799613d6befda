"""Row 60: chunked prefill with piggybacked decodes, simulated with the engine's own scheduler."""
