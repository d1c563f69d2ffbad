{#- What each statement carries, as JSON: which run and which node sent it. -#}
{% macro query_comment(node) -%}
    {%- set comment = {
        'app': 'ecomm dbt-runner',
        'run_id': env_var('ECOMM_RUN_ID', ''),
        'invocation_id': invocation_id,
    } -%}
    {%- if node -%}
        {%- do comment.update({'node': node.unique_id}) -%}
    {%- endif -%}
    {{ return(tojson(comment)) }}
{%- endmacro %}
