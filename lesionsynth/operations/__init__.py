"""Operations, the kinds of steps: one file a kind."""
