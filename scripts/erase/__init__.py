"""Erase evaluations on a privacy request, and keep a receipt."""
