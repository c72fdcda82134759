"""What stands between a damaged or hostile file and the libraries that read it."""
