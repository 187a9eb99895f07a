"""Turns archives into tables: a day of an export becomes one Parquet file, and each destination takes it from there.

canonical_files archives that are read row by row, and the quarantine file
asking          asks a DuckDB file a question
dask_pool       the workers of a Dask scheduler
dask_task       what runs on a Dask worker
data_direct     makes a day of the Data Direct table from the flat file
day_maker       what is asked of a worker that makes a day, and what it answers
duck            the connection to DuckDB that makes a day
exact_path      reads an archive row by row, for what DuckDB cannot read exactly
failpoints      points where a test can watch a change, make it fail, or kill the process
faults          translates errors of DuckDB and of the operating system
frames          messages between a load and its workers
load_disk       the disk under a load directory
inflated_files  the archives of a day, decompressed and checked
make_day        makes the Parquet file of a day
scan            scans the archives of a day
sinks           the destinations
worker          a worker: a process that makes days
worker_pool     the workers of a load
"""
