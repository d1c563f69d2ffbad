"""`ecomm explain`: from a KPI down to the rows, versions, files and runs that it is made of."""
