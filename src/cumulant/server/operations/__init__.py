"""Operations by subject. Each module has its own `OPERATIONS`, so that a command imports what it needs alone."""
