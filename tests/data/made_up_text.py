import random


def words(seed: int, count: int) -> str:
    """Text with repeated words, so that BPE finds pairs to merge."""
    draw = random.Random(seed)
    known = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(200)]
    return " ".join(draw.choices(known, k=count))
