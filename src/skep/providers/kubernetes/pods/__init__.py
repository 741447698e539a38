"""Containers as pods: what they are made of, what carries them, what is seen of them."""
