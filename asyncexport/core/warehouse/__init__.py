"""The rules of the warehouse: which tables and days there are, and what a field of a row becomes. No IO.

choices         the words that the settings choose from
columns         the columns of the flat table and their kinds
days            the archives of each day, and the receipt that says what a day was made from
identifiers     names and texts in SQL
views           the views beside each table
"""
