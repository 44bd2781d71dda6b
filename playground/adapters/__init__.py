"""LoRA adapters: whether one is safe and fits its model, told before anything of it is loaded; and models with one.

Knows no engine and no UI. torch is needed in `base_layers`, which asks an architecture for its layers, and in `views`
and `sharing`, which put an adapter beside its base; PEFT in `views` only.
"""
