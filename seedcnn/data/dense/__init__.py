"""Pictures with boxes or with a class for every pixel: layouts, checks, scenes and transforms."""
