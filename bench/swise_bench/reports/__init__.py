"""Reports: terminal tables, the HTML page, charts, rooflines."""
