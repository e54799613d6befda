"""Local diffusion: noise levels, models of ``diffusers`` directories, and one batch for whoever asks."""
