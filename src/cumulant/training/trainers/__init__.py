"""Trainers: LightGBM, XGBoost, CatBoost, linear models, scikit-learn, the user's own."""
