"""The nouns and verbs of a search. Imports nothing else of the package, knows no text, does no I/O."""
