"""The destinations of loaded days, one module each.

sink            what each destination offers
"""
