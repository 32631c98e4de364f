"""Names of the report's files."""

import re


def picture_name(figure: str, index: int, variant: str) -> str:
    """Distinct for every variant, whatever characters its name has."""
    return f"{figure}_{index:02d}_{re.sub(r'[^A-Za-z0-9.=_-]+', '_', variant)[:60]}"
