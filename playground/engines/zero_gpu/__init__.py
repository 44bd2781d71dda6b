"""Answering on a Space with ZeroGPU: all panels of a turn in one grant of the GPU; and the same rehearsed anywhere."""
