"""What stands between a launch page and the services: recipes as forms and as YAML, estimates."""
