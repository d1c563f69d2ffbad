class PipelineApi:
    def __init__(self,*a): pass
    def add_routes(self,r): pass
