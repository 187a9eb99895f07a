"""The rules of the Data Direct table: the flat table's rows in the shape of Fullstory's own sync to a warehouse. No IO.

columns         the columns of the table, and the receipt of a day
values          SQL for one value of a JSON object, and for the object
mapping         which property comes from which column, by type of event
urls            the six parts of a URL
json_members    the members of a JSON object, each value as it is written
nesting         custom variables as nested objects
statements      the SQL statements that make a day
"""
