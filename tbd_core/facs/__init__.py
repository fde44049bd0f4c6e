"""Facial Action Coding System: action units, emotions and rules as data. No torch."""
