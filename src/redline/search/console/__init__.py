"""What a search shows on the terminal."""
