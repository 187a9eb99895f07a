"""The destinations of loaded days, one module each.

sink                    what each destination offers
duckdb                  a DuckDB file: views over the Parquet files, or tables
duckdb_file             opening that file
duckdb_record           what is known about each of its tables
parquet                 the Parquet files
postgres                PostgreSQL: tables partitioned by month
postgres_connection     the connection to it, and its errors
"""
