"""Images steered over noises and denoising steps."""
