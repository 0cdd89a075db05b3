"""The fault campaign: what goes wrong on weekends is done to runs, on purpose, and counted.

A family of faults is a module with a function `campaign(go)` that yields an Outcome per trial. What
is expected is in docs/reliability.md: every good tile is there once and right, every bad slide is
named, every command ends. Everything is seeded, waits for events with a limit, and goes through the
command line or the package's public functions.
"""
