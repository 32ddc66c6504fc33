"""An inference engine under measurement: its process, its OpenAI-compatible API, its metrics."""
