"""The stability gate: has anything got worse since a stored search? `python -m redline.gate --help`."""
