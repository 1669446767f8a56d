"""Quality of a model in production: with labels, without them, and whether it does harm.

`measured` and `estimate_windows` give metrics by window, `audited` compares the second with the first, and `add_window`
gives the harm after one window and the next. Needs numpy and scipy; a regression's `learn_loss` needs LightGBM,
`streams` river.
"""
