"""The sample bank: permanent storage of generations, scores and verdicts."""
