"""What a Celery worker process runs."""
