"""From token ids to token ids: the loops that drive a model, and how they choose. Know no text."""
