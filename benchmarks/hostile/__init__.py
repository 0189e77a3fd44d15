"""Ninety webhook endpoints beside ten hostile ones, while dispatchers are killed and frozen."""
