"""Storage classes of what a project stores: which are declared, what they cost, and rules of the clouds for them.

Decisions and values; `flows/storage` reads the stores.
"""
