"""The whole engine under load and faults for a while, and a checker that holds its history against what is promised."""
