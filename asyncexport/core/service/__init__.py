"""What Fullstory's API and its storage host are asked, and what their answers mean; no IO.

requests            what is asked
replies, statuses   what came back, and which error it stands for
resources           what a successful reply holds
transfer, urls      the storage host's answers, and links to it
proxies             which URL names a proxy, and which hosts need none
retrying            what follows from what came back: the table
refusals            what is known of refusals
operation_failures  whose trouble it is that operations fail
fetch_attempts      how the fetching of one file goes
"""
