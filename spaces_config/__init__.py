"""How the playground runs on Hugging Face Spaces: `python -m spaces_config` builds, checks and uploads one."""
