"""The leaderboard: submissions that can be checked, and the tables and pages made of them.

A submission is one file made of finished runs: their rows, their answers, their settings. What is published is
recomputed from these rows, and every stored answer is scored again. That proves consistency, not honesty: an entry is
verified when a maintainer has run one of its seeds again.
"""
