"""Notices stored time that has far fewer rows than usual, although every file is complete.

shortfalls  what was noticed, and which of it is new, known, over or accepted
rules       the two rules: half hours that are suddenly empty, and days that are far below their weekday
row_counts  the rows of a range, by half hour and by day
old_data    whether everything older than 30 days came without rows
memory      what the ledger remembers of earlier runs, as text
"""
