"""The SQL warehouse: one executor behind Thrift (`thrift`) and the Statement Execution API (`rest`)."""
