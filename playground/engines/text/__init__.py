"""From token ids to what a person reads. Know no model."""
