"""The features of the Fraud Detection Handbook, as a user writes them."""

from cumulant.features import col, source

tx = source("tx")
windows = ["1d", "7d", "30d"]

row = tx.columns("TX_AMOUNT")
night = col("TX_DATETIME").dt.hour("Europe/Paris") < 6
weekday = col("TX_DATETIME").dt.weekday("Europe/Paris")

# The card: this payment counts too, since it is known at the prediction.
card = tx.by("CUSTOMER_ID")
card_n = card.count(window=windows)
card_mean = card.mean("TX_AMOUNT", window=windows)
amount_ratio = col("TX_AMOUNT") / card_mean["30d"]

# The terminal: labels become known 7 days later (cumulant.yaml), so these windows end 7 days back by themselves.
terminal = tx.by("TERMINAL_ID")
terminal_n = terminal.count("TX_FRAUD", window=windows)
terminal_fraud = terminal.mean("TX_FRAUD", window=windows)
