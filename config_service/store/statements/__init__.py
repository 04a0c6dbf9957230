"""What an SQL store reads and writes, one module per concern: functions that run within the caller's transaction.

Knows tables and rows. Begins and commits nothing, and knows no database in particular, so that several of these
functions make one commit.
"""
