"""Rules that choose one point of a front, each with its reasons in words; pure."""
