"""The sample bank: what was generated, scored and judged, kept for ever."""
