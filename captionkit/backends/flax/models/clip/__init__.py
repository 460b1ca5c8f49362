"""The image encoder of CLIP (Radford et al. 2021), alone and as the eye of GIT."""
