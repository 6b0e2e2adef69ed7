"""Confidence in the copies: the evidence of scans, how it is judged, and what people are asked and told."""
