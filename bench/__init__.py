"""Side-by-side benchmarks: ours and the peer's in one run on one machine, printed as ratios."""
