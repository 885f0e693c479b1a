"""Drawings of a lab as SVG, laid out here."""
