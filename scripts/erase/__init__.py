"""Erase evaluations on a privacy request and keep a receipt, or protect them with a legal hold."""
