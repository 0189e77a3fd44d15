"""Speeds, as ratios within one run or as times of pure functions; `make bench` runs all of them."""
