"""The pages that people look at: the dashboard and the documents. Each is one file with a strict policy."""
