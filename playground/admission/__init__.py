"""Who may ask now, how much, and who comes next: what stands between visitors and the engines."""
