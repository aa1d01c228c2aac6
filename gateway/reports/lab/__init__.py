"""The report of a lab run (lab.json and blocks/): read.py reads, build.py computes (PURE), html.py and what draws present.

The document's words are loadtest/lab/spec.py's; this package imports nothing of loadtest and takes the document as JSON.
"""
