"""The rules of the warehouse: which tables and days there are, and what a field of a row becomes. No IO.

casting         what the text of a field becomes in its column
choices         the words that the settings choose from
columns         the columns of the flat table and their kinds
day_statement   the statement that makes the file of a day
days            the archives of each day, and the receipt that says what a day was made from
duckdb_sql      statements for DuckDB
identifiers     names and texts in SQL
reading         how archives are read
views           the views beside each table
"""
