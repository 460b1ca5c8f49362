"""The image encoder DINOv2 (Oquab et al. 2023)."""
