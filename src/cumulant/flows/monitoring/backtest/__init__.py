"""The flow `backtest`: the project's labelled history replayed under rules of retraining and kinds of history."""
