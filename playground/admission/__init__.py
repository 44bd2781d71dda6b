"""Who may ask, how much, and who is next: the line in front of the engines."""
