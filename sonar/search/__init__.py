"""Searching the space of trials: what to try, what happened, which result to take."""
