"""The documentation: Markdown pages, and the code that writes the pages of the reference."""
