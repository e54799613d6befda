"""What runs models: our engine, endpoints behind HTTP, and denoisers. Nothing here knows a search."""
