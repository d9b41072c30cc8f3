"""Any OpenAI-compatible server under load: how fast it answers, how many, how evenly."""
