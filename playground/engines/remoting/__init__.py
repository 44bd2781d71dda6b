"""The rooms of `remote.py`: which servers may be asked, how they are spoken to, what they answer, what went wrong."""
