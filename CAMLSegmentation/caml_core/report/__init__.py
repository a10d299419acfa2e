"""Pictures and pages: loss curves, overlays on scans, and a report that opens in any browser."""
