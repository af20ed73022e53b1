"""The benchmark: peers (the systems compared), parts (what is measured), and what prints and stores the figures."""
