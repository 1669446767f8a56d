"""The flow `backtest`: retraining policies and kinds of history replayed over the project's labelled rows."""
