"""The text decoder GPT-2 (Radford et al. 2019) with cross-attention to an image."""
