"""How unlikely it is by chance that a fact holds for so many of some rows."""

import math

# Fewer rows have nothing in common that is worth telling.
MANY = 10
# A fact is told if it holds so many times as often as elsewhere, and if chance makes it once in a million plans.
LIFT, UNLIKELY = 2, math.log(1e6)


def drawn(planned: int, of: int, present: int, rows: int) -> float:
    """Return how unlikely it is that at least `planned` of `of` rows have the fact, if they are drawn by chance.

    As a natural logarithm. They are drawn from the table, which has `rows`; `present` of these have the fact. 0 if the
    planned rows have it no more often than all rows, or if the numbers contradict each other.
    """
    others, others_present = rows - of, present - planned
    if not 0 <= others_present <= others or planned * rows <= of * present:
        return 0.0
    exactly = choices(present, planned) + choices(rows - present, of - planned) - choices(rows, of)
    # "At least" means `planned`, `planned` + 1, ... up to `of`. None of these is more likely than `planned` itself.
    return max(0.0, -exactly - math.log(of - planned + 1))


def unlikeliness(planned: int, of: int, present: int, rows: int) -> float:
    """Return how unlikely it is that so many of the planned rows have the fact, as a natural logarithm.

    By chance a row has it as often as `present` of `rows` others (by Chernoff's bound for the binomial distribution).
    """
    # One is added, so that a fact which no other row has is not beyond all measure.
    share, base = planned / of, (present + 1) / (rows + 1)
    if share <= base:
        return 0.0
    other = (1 - share) * math.log((1 - share) / (1 - base)) if share < 1 else 0.0
    return of * (share * math.log(share / base) + other)


def choices(of: int, number: int) -> float:
    """Return in how many ways one can choose, as a natural logarithm."""
    return math.lgamma(of + 1) - math.lgamma(number + 1) - math.lgamma(of - number + 1)
