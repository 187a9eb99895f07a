"""The rules of the warehouse: which tables and days there are, and what a field of a row becomes. No IO.

bigquery_sql    tables, statements and job ids for BigQuery
casting         what the text of a field becomes in its column
cells           which texts fit a column
choices         the words that the settings choose from
columns         the columns of the flat table and their kinds
copy_text       rows in the text format of PostgreSQL's COPY
csv_records     the fields of a CSV record
data_direct     the Data Direct table: the same rows in the shape of Fullstory's own sync
day_statement   the statement that makes the file of a day
days            the archives of each day, and the receipt that says what a day was made from
differences     where a destination differs from what the archives lead to
duckdb_sql      statements for DuckDB
exact_reader    reads the content of an archive row by row
identifiers     names and texts in SQL
json_text       the fields of a plain row of JSON
jsonb           what jsonb cannot hold
load_events     what a load reports about each day
load_tally      counts what a load did, for its summary
odd_json        the fields of any row of JSON
places          where the load directory and the DuckDB file may be
postgres_sql    statements for PostgreSQL
raw_rows        cuts the content of an archive into rows
reading         how archives are read
rows            the canonical form of a row
scanning        the names of an archive's fields, and whether DuckDB reads it exactly
snowflake_check whether Snowflake has the values of a Parquet file
snowflake_login where a Snowflake account is, and who logs in there
snowflake_sql   statements for Snowflake
table_columns   the columns that a table lacks
tables          the names of tables
to_load         which days a load has to do
views           the views beside each table
worker_count    how many days are made at the same time
"""
