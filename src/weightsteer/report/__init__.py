"""What the pages of all experiments share: charts, tables, the shell of a page, and what the terminal shows."""
