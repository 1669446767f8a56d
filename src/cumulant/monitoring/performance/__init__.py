"""Quality of a model in production: with labels, without them, and whether it does harm.

`measured` and `estimated` give metrics by window, `audited` holds the second to the first, and `harm` is told one
window after the other. Needs numpy and scipy; a regression's `learn_loss` needs LightGBM, `streams` river.
"""
