"""LoRA adapters: whether one is safe and fits its model, told before anything of it is loaded.

Knows no engine and no UI. torch is needed in `base_layers` only, which asks an architecture for its layers.
"""
