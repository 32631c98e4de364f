"""What to run next, and what follows from what was seen: pure functions on plain numbers."""
