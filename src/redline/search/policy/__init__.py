"""What to run next, and what follows from what was seen: pure functions on plain numbers."""

from redline.search.policy.points import Point
from redline.search.policy.question import Question
from redline.search.policy.state import SearchState, search_state

__all__ = ["Point", "Question", "SearchState", "search_state"]
