"""The rules of the mirror: what becomes of an object in the bucket, and what a mirror's result is. No IO.

environment  what the variables of the object store say, and what is wrong with them
limits       how much a mirror does at a time, and how long it waits
objects      the files to mirror, the objects in the bucket, and what is to be done with each pair
seen         names an object that was found to be right, so that it need not be asked for again
tally        counts what a mirror did, for its summary, and decides its exit code
"""
