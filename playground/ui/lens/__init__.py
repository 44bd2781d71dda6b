"""The prompt lens: what a model is given, part by part and token by token, before it is sent."""
