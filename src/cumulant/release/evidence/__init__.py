"""Evidence of a release: metrics, their tests, health, traffic split."""
