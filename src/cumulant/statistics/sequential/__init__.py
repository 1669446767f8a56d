"""Sequential tests, valid under repeated looks: rates, means, shares, and the alpha of a release.

States are small and immutable: `add` gives the next, `to_json` stores one, and leading axes hold many releases at once.
Evidence is the natural logarithm of an e-value: reject at log(1 / alpha), whenever reached.
"""
