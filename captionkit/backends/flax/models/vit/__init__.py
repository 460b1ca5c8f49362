"""The image encoders ViT (Dosovitskiy et al. 2020) and DeiT (Touvron et al. 2020)."""
