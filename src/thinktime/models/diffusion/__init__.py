"""Local diffusion: noise levels, models from ``diffusers`` directories, batching, and storage of states."""
