"""kpi-gate: hold Tableau back where a KPI moved further than it may, until a person lets it go on."""
