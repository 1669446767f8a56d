"""Rules of the port `log`, by subject; `LogConformance` has them all."""
