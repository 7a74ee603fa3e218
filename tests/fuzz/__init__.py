"""Hostile input, made by the million from a seed; what was interesting once is kept in ``corpus``.

``python -m tests.fuzz`` (``make fuzz``) runs it; ``test_fuzz.py`` runs a little of it and all that is kept.
"""
