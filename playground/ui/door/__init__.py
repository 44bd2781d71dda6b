"""What stands between a request and the page: layers that refuse what is too much, or from elsewhere, and say why."""
