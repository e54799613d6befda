"""The bookkeeping of a search, without a model."""
