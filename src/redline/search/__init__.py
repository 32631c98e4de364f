"""The search for each variant's largest stable learning rate. Imports no torch: it starts fast."""
