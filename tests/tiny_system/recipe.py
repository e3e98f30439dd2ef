from tiny import TinyRecipe

RECIPES = (TinyRecipe,)
