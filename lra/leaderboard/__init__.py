"""The leaderboard: statistics over records, and their renderers."""
