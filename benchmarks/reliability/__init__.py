"""What microtome withstands: kills, mutated files, many small images; figures for docs/reliability.md."""
