"""How fast microtome is, beside others on the same pixels: `make bench`, or `python -m benchmarks`.

`harness` measures, `report` writes the tables, `images` makes what is measured on. A benchmark is
a module with a function `tables`, listed in `__main__`.
"""
