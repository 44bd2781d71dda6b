"""How the playground runs on Hugging Face Spaces: `python -m spaces_config` builds, checks and uploads one.

Works from a checkout, for a Space gets its files. What the app needs while it runs is never here.
"""
