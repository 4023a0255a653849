"""What several tests need and none of them owns: hostile processes, oracles, an independent WAL writer."""
