"""The named endpoints for programs, next to the page."""
