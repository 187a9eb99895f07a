"""The destinations of loaded days, one module each.

sink                    what each destination offers
duckdb                  a DuckDB file: views over the Parquet files, or tables
duckdb_file             opening that file
duckdb_record           what is known about each of its tables
bigquery                BigQuery: tables partitioned by day
bigquery_connection     the client of it, and its errors
bigquery_file           the file that a load job reads
bigquery_jobs           the jobs that replace a day
bigquery_record         the record of loaded days
parquet                 the Parquet files
postgres                PostgreSQL: tables partitioned by month
postgres_catalog        what its catalog says about a table
postgres_connection     the connection to it, and its errors
postgres_record         the record of loaded days
snowflake               Snowflake: tables loaded through a stage
snowflake_connection    the connection to it, and its errors
"""
