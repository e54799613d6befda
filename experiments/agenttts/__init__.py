"""Row 39: how many samples, and which models, the stages of a pipeline get."""
