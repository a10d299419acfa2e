"""Cases, cohorts, volumes and what is done to them before the network sees them."""
