"""Turns archives into tables: a day of an export becomes one Parquet file, and each destination takes it from there.

day_maker       what is asked of a worker that makes a day, and what it answers
sinks           the destinations
"""
