"""What an output directory holds, what is missing, and whether all is well: one value for `status` and its page.

Everything here is a function of what the ledger and the disk say, the settings, and the time.

report         the report: each export, the last runs, requests per hour, and the verdict on all of it
last_run       whether the last run ended well
beside         whether the last load and the last mirror went well
run_order      the runs of the ledger and the joined runs in one order
export_report  what is known of one export: its gaps, its weeks, and what is wrong with it
problems       what is wrong with an export
missing        which time is missing, why, and which command fills it
gap_list       how the gaps are listed for people
weeks          coverage as a line per week
layers         cuts a span of time by what covers it
acceptance     which open problems lie in a range that the user accepts
overview       what the ledger knows of one export
records        facts as values: runs, requests per hour, accepted gaps, altered archives
"""
