"""The set-up for rows that are streamed: a random part in memory, and few passes over all rows."""
