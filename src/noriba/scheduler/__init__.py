"""Scheduling decisions: pure functions over snapshots. No I/O, no clock, no randomness."""
