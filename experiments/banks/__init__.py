"""Banks of samples of real models on benchmarks, see README.md."""
