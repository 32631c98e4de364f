"""What to run next, and what follows from what was seen: pure functions on plain numbers."""

from redline.search.policy.state import Question, SearchState, search_state
from redline.search.policy.verdicts import Point

__all__ = ["Point", "Question", "SearchState", "search_state"]
