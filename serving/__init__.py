"""Sayso's inference side: labels, windows, the predictor, the service and the command line."""
