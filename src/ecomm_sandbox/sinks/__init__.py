"""Where alerts go (Slack, PagerDuty and Jira, as far as Alertmanager calls them), and where OpenLineage events go."""
