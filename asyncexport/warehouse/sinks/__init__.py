"""The destinations of loaded days, one module each.

sink            what each destination offers
duckdb          a DuckDB file: views over the Parquet files, or tables
duckdb_file     opening that file, and its record of what is in it
"""
