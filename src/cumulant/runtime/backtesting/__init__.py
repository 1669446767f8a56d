"""The flow `backtest`: the project's labelled history replayed under rules of retraining and kinds of history."""

from cumulant.runtime.backtesting.flow import Asked, Backtested, Compared, Replayed, backtest_project

__all__ = ["Asked", "Backtested", "Compared", "Replayed", "backtest_project"]
