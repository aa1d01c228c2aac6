"""The same model twice, and the proof that both are equal.

One module per model holds its Keras 3 definition and its native PyTorch twin side by side; `build` makes the artefacts, each
framework in its own process; `parity` runs inputs through every artefact and writes the manifest; `add` takes a user's own pair.
"""
