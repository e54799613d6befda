"""Code that runs models: our engine, endpoints behind HTTP, and denoisers. Nothing here depends on searches."""
