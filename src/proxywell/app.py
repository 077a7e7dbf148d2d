"""The one place that joins parts: settings in, running parts out."""
